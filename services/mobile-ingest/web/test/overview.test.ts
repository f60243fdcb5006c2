import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Bounds } from '../src/api';
import { everything, Turns } from '../src/overview';

test('everything is the imagery and who is live', () => {
  assert.equal(everything(null, []), null);
  assert.deepEqual(everything([1, 2, 1.1, 2.1], []), [1, 2, 1.1, 2.1]);
  assert.deepEqual(everything(null, [[1, 2], [3, 1]]), [1, 1, 3, 2]);
  assert.deepEqual(everything([1, 2, 1.1, 2.1], [[1.2, 2]]), [1, 2, 1.2, 2.1]);
});

test('of imagery that is too wide to be seen, who is live is what matters', () => {
  assert.deepEqual(everything([1, 2, 5, 2.1], [[3, 2]]), [3, 2, 3, 2]);
  assert.deepEqual(everything([1, 2, 1.1, 6], [[3, 2]]), [3, 2, 3, 2]);
  assert.deepEqual(everything([1, 2, 1.1, 2.1], [[3, 2]]), [3, 2, 3, 2], 'far from the imagery');
  assert.deepEqual(everything([1, 2, 5, 6], []), [1, 2, 5, 6], 'there is nothing else');
});

test('what cannot be shown is turned to once', () => {
  const turns = new Turns();
  const wide: Bounds = [0, 0, 10, 10];
  assert.ok(!turns.due(wide, true));
  assert.ok(turns.due(wide, false));
  turns.to(wide);
  assert.ok(!turns.due(wide, false));
  assert.ok(!turns.due([0, 0, 10.1, 10], false), 'still in the free part around it');
  assert.ok(turns.due([0, 0, 12, 10], false), 'outgrown');
  turns.forget();
  assert.ok(turns.due(wide, false), 'in a window of another size');
});
