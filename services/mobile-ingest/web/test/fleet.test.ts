import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Vehicle } from '../src/api';
import { type Change, Fleet, MAX_SENSORS } from '../src/fleet';

function state(id: string, changes: Partial<Vehicle> = {}): Vehicle {
  return {
    vehicle_id: id,
    observed_unix_ms: 0,
    latitude: 1,
    longitude: 2,
    altitude_m: null,
    relative_altitude_m: null,
    roll_deg: null,
    pitch_deg: null,
    yaw_deg: null,
    heading_deg: null,
    ground_speed_mps: null,
    battery_percent: null,
    flight_mode: null,
    armed: null,
    source: 'mavlink2',
    sensor_health: 'healthy',
    link: null,
    simulated: false,
    ...changes,
  };
}

test('a vehicle appears once, falls silent, and is heard again', () => {
  const changes: string[] = [];
  const fleet = new Fleet((change: Change) => changes.push(change.kind), () => undefined);
  fleet.vehicle(state('a'), 1_000, true);
  fleet.vehicle(state('a'), 1_100, true);
  fleet.tick(5_000);
  fleet.tick(9_000);
  fleet.vehicle(state('a'), 9_100, true);
  assert.deepEqual(changes, ['appeared', 'silent', 'heard-again']);
});

test('an old state read from the node is not a sign of life', () => {
  const changes: string[] = [];
  const fleet = new Fleet((change: Change) => changes.push(change.kind), () => undefined);
  fleet.vehicle(state('a', { observed_unix_ms: 1_000 }), 60_000, false);
  fleet.tick(60_000);
  assert.deepEqual(changes, ['appeared', 'silent']);
});

test('a position that is unknown keeps the last one', () => {
  const fleet = new Fleet(() => undefined, () => undefined);
  fleet.vehicle(state('a'), 1, true);
  assert.deepEqual(fleet.vehicle(state('a', { latitude: null, longitude: null }), 2, true)?.position, [2, 1]);
});

function crowd(gone: string[] = []): Fleet {
  const fleet = new Fleet(() => undefined, (sensor) => gone.push(sensor.id));
  for (let i = 0; i < MAX_SENSORS; i += 1) assert.ok(fleet.vehicle(state(`v${i}`), 1_000 + i, true));
  return fleet;
}

test('beyond the bound a sensor that is heard stays, and a new one is only counted', () => {
  const gone: string[] = [];
  const fleet = crowd(gone);
  for (let round = 0; round < 3; round += 1) {
    assert.equal(fleet.vehicle(state('late'), 2_000, true), null);
    assert.equal(fleet.vehicle(state('later'), 2_000, true), null);
    assert.ok(fleet.vehicle(state('v0'), 2_000, true));
  }
  assert.deepEqual(gone, []);
  assert.equal(fleet.sensors.length, MAX_SENSORS);
  assert.equal(fleet.hidden, 2);
  assert.equal(fleet.get('late'), null);
});

test('beyond the bound the sensor that is silent for longest makes room', () => {
  const gone: string[] = [];
  const fleet = crowd(gone);
  assert.equal(fleet.vehicle(state('late'), 1_300, true), null);
  for (let i = 0; i < MAX_SENSORS; i += 1) if (i !== 7 && i !== 9) fleet.vehicle(state(`v${i}`), 9_000, true);
  fleet.tick(9_000);
  assert.ok(fleet.vehicle(state('late'), 9_000, true));
  assert.deepEqual(gone, ['v7']);
  assert.equal(fleet.hidden, 0);
  assert.equal(fleet.sensors.length, MAX_SENSORS);
});

test('a sensor without room that is not heard any more is not counted for ever', () => {
  const fleet = crowd();
  fleet.vehicle(state('late'), 2_000, true);
  fleet.tick(3_000);
  assert.equal(fleet.hidden, 1);
  fleet.tick(63_000);
  assert.equal(fleet.hidden, 0);
});
