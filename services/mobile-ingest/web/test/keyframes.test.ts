import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Keyframe } from '../src/api';
import { follows, merged } from '../src/keyframes';

const keyframe = (frame_id: string, reason: string | null = null) => ({ frame_id, reason }) as Keyframe;
const ids = (keyframes: Keyframe[]) => keyframes.map((k) => k.frame_id + (k.reason ?? '')).join(' ');

test('new keyframes come behind those that are kept, revised ones take their place', () => {
  const kept = [keyframe('a'), keyframe('b'), keyframe('c')];
  assert.equal(ids(merged(kept, [keyframe('c'), keyframe('d')], 10)), 'a b c d');
  assert.equal(ids(merged(kept, [keyframe('b', '!'), keyframe('d')], 3)), 'b! c d');
});

test('a part of the newest is enough only where it meets what is kept', () => {
  assert.equal(follows([], [keyframe('a')]), true);
  assert.equal(follows([keyframe('a'), keyframe('b')], [keyframe('b'), keyframe('c')]), true);
  assert.equal(follows([keyframe('a')], [keyframe('c')]), false);
});
