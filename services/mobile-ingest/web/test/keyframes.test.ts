import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Keyframe, Keyframes } from '../src/api';
import { KeyframeList } from '../src/keyframes';

const of = (after: number | null, position: number, ...ids: string[]): Keyframes => ({
  after,
  position,
  keyframes: ids.map((id) => ({ frame_id: id.replace('!', ''), reason: id.endsWith('!') ? '!' : null }) as Keyframe),
});
const shown = (list: KeyframeList) => list.all.map((k) => k.frame_id + (k.reason ?? '')).join(' ');

test('new keyframes come behind those that are kept, revised ones take their place', () => {
  const list = new KeyframeList(3);
  assert.ok(list.add(of(1, 2, 'a')), 'it waits for the list');
  assert.ok(list.read(of(null, 3, 'a', 'b', 'c')));
  assert.ok(list.add(of(3, 5, 'b!', 'd')));
  assert.equal(shown(list), 'b! c d');
  assert.ok(list.add(of(4, 5, 'd')), 'what was said already');
  assert.equal(shown(list), 'b! c d');
});

test('a hole in what is said, or an order that begins again, is seen', () => {
  const list = new KeyframeList(9);
  assert.ok(list.read(of(null, 3, 'a')));
  assert.equal(list.add(of(4, 5, 'c')), false);
  assert.equal(list.add(of(0, 1, 'c')), false);
  assert.equal(shown(list), 'a');
});

test('what is said while the list is read is added to it', () => {
  const list = new KeyframeList(9);
  list.reading();
  assert.ok(list.add(of(1, 2, 'b')));
  assert.ok(list.add(of(2, 3, 'c')));
  assert.ok(list.read(of(null, 2, 'a', 'b')));
  assert.equal(shown(list), 'a b c');
  list.reading();
  assert.ok(list.add(of(7, 8, 'x')));
  assert.equal(list.read(of(null, 5, 'a')), false, 'between them is a hole');
  list.reading();
  assert.ok(list.add(of(5, 6, 'd')));
  assert.ok(list.read(null), 'it could not be read');
  assert.ok(!list.add(of(6, 7, 'e')), 'and what was said meanwhile is missing');
});
