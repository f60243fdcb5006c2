import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LngLat } from '../src/api';
import { MAX_TRACK_POINTS } from '../src/fleet';
import { ago, bearing, count, duration, meshNews, position, quantity, UNKNOWN } from '../src/format';
import { atLeast, closeRing, distanceMetres, extendTrack, graticule, graticuleStep, polygonContains, unwrap } from '../src/geo';
import { sparkline } from '../src/latency';
import { EventStreamParser } from '../src/sse';

test('what is unknown reads as a dash and never as zero', () => {
  assert.equal(quantity(null, ' m'), UNKNOWN);
  assert.equal(quantity(0, ' m'), '0 m');
  assert.equal(count(null), UNKNOWN);
  assert.equal(duration(undefined), UNKNOWN);
  assert.equal(bearing(null), UNKNOWN);
  assert.equal(position(null, 3), UNKNOWN);
  assert.equal(ago(null), UNKNOWN);
});

test('values read as people expect them', () => {
  assert.equal(bearing(-90), '270° W');
  assert.equal(bearing(359.7), '0° N');
  assert.equal(duration(4.21), '4.2 ms');
  assert.equal(duration(1310), '1.31 s');
  assert.equal(position(-37.5, 145.25, 2), '37.50° S, 145.25° E');
});

test('what a peer simulated says so', () => {
  const tile = { kind: 'tile', peer_id: 'p', layer: 'imagery', sequence: 1, tiles: 3, simulated: true } as const;
  assert.equal(meshNews(tile, 1), 'Peer p (simulated): 3 tiles changed');
  assert.equal(meshNews(tile, 2), 'Peer p (simulated): 2 map changes');
  assert.equal(meshNews({ ...tile, simulated: false }, 1), 'Peer p: 3 tiles changed');
  const message = { kind: 'message', peer_id: 'p', topic: 't', bytes: 1, published_unix_ms: 0 } as const;
  assert.equal(meshNews(message, 1), 'Peer p: a message on t');
});

test('events are read whatever the chunks they arrive in', () => {
  const text = ': hello\r\nretry: 2000\nid: 1\nevent: tile\ndata: {"a":\ndata: 1}\n\ndata: x\r\n\r\nevent: empty\n\n';
  const whole = new EventStreamParser().push(text);
  const parser = new EventStreamParser();
  const single = [...text].flatMap((character) => parser.push(character));
  assert.deepEqual(whole, [
    { name: 'tile', data: '{"a":\n1}', lastId: '1' },
    { name: 'message', data: 'x', lastId: '1' },
  ]);
  assert.deepEqual(single, whole);
});

test('an endless line ends the stream instead of filling the memory', () => {
  assert.throws(() => new EventStreamParser().push('x'.repeat((1 << 20) + 1)), /too long/);
});

test('a track is bounded and ignores jitter', () => {
  const track: LngLat[] = [];
  for (let i = 0; i < MAX_TRACK_POINTS * 2; i += 1) extendTrack(track, [i * 0.0001, 0], MAX_TRACK_POINTS);
  assert.equal(track.length, MAX_TRACK_POINTS);
  assert.equal(extendTrack(track, [(MAX_TRACK_POINTS * 2 - 1) * 0.0001 + 1e-7, 0], MAX_TRACK_POINTS), false);
});

test('a ring that crosses the antimeridian or circles the pole stays in one piece', () => {
  assert.deepEqual(unwrap([[179, 1], [-179, 1], [178, 0]]), [[179, 1], [181, 1], [178, 0]]);
  const around = closeRing([[-180, -70], [-60, -75], [60, -72], [180, -70]]);
  assert.ok(polygonContains([around], [10, -80]));
  assert.ok(!polygonContains([around], [10, -60]));
});

test('a graticule has a line at each step and none outside of the view', () => {
  assert.equal(graticuleStep(1, 5), 0.2);
  const lines = graticule([0.05, 0.05, 0.95, 0.95], 0.2);
  assert.equal(lines.length, 8);
});

test('a view around a point is wide enough to be seen', () => {
  const [west, , east] = atLeast([10, 60, 10, 60], 200);
  assert.ok(Math.abs(distanceMetres([west, 60], [east, 60]) - 200) < 3);
});

test('the slowest frame touches the top of the line', () => {
  assert.deepEqual(sparkline([10, 20], 100, 50), [[0, 25], [100, 0]]);
});
