import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apart, type Spot } from '../src/apart';

function placed(spots: Spot[]): { id: string; x: number; y: number; side: string }[] {
  const offsets = apart(spots);
  return spots.map(({ id, x, y }) => {
    const { dx, dy, side } = offsets.get(id)!;
    return { id, x: x + dx, y: y + dy, side };
  });
}

test('a marker that stands alone stays where it is', () => {
  const [a, b] = placed([{ id: 'a', x: 10, y: 10 }, { id: 'b', x: 100, y: 10 }]);
  assert.deepEqual([a?.x, a?.y, b?.x, b?.y], [10, 10, 100, 10]);
});

test('two in one place stand side by side, with their names outside', () => {
  const [a, b] = placed([{ id: 'a', x: 50, y: 50 }, { id: 'b', x: 52, y: 50 }]);
  assert.ok(b!.x - a!.x >= 30 && Math.abs(a!.y - b!.y) < 1);
  assert.deepEqual([a!.side, b!.side], ['left', 'right']);
});

test('ten in one place can all be told apart', () => {
  const spots = Array.from({ length: 10 }, (_, i) => ({ id: `v${i}`, x: 300 + i / 10, y: 200 }));
  const all = placed(spots);
  for (const one of all) {
    for (const other of all) {
      if (one.id !== other.id) assert.ok(Math.hypot(one.x - other.x, one.y - other.y) >= 26, `${one.id} ${other.id}`);
    }
  }
});

test('the order in which they are given does not matter', () => {
  const spots = [{ id: 'a', x: 5, y: 5 }, { id: 'b', x: 6, y: 5 }, { id: 'c', x: 7, y: 5 }];
  assert.deepEqual(apart(spots), new Map([...apart([...spots].reverse())].sort()));
});
