/** What is known of every vehicle and phone: state, track, and whether it is still heard. No DOM here. */
import type { Keyframe, LngLat, Phone, Pose, Vehicle } from './api';
import { extendTrack } from './geo';

export type Kind = 'vehicle' | 'phone' | 'camera';

export interface Sensor {
  readonly id: string;
  kind: Kind;
  /** Order of first sight; picks the colour. */
  readonly index: number;
  vehicle: Vehicle | null;
  phone: Phone | null;
  pose: Pose | null;
  keyframe: Keyframe | null;
  position: LngLat | null;
  headingDeg: number | null;
  /** By the reader's clock; `null` before the first sign of life. */
  heardUnixMs: number | null;
  silent: boolean;
  simulated: boolean;
  readonly track: LngLat[];
}

export type Change =
  | { kind: 'appeared'; sensor: Sensor }
  | { kind: 'silent'; sensor: Sensor }
  | { kind: 'heard-again'; sensor: Sensor };

/** Beyond this a silent sensor makes room for a new one; while none is silent, a new one is only counted. */
export const MAX_SENSORS = 256;
/** Sensors that are counted without being shown; further ones are not counted. */
const MAX_HIDDEN = 20_000;
/** The oldest points of a track go beyond this: about five minutes at two positions a second. */
export const MAX_TRACK_POINTS = 600;
/** A vehicle sends several times a second, a phone about every second, a lone camera when it takes a picture. */
const SILENT_AFTER_MS: Record<Kind, number> = { vehicle: 5_000, phone: 20_000, camera: 60_000 };

export class Fleet {
  readonly #sensors = new Map<string, Sensor>();
  /** When those were last heard for whom there is no room. */
  readonly #hidden = new Map<string, number>();
  readonly #onChange: (change: Change) => void;
  readonly #onGone: (sensor: Sensor) => void;
  #seen = 0;

  constructor(onChange: (change: Change) => void, onGone: (sensor: Sensor) => void) {
    this.#onChange = onChange;
    this.#onGone = onGone;
  }

  get sensors(): Sensor[] {
    return [...this.#sensors.values()];
  }

  /** Sensors that were heard lately and for whom there is no room. */
  get hidden(): number {
    return this.#hidden.size;
  }

  get(id: string): Sensor | null {
    return this.#sensors.get(id) ?? null;
  }

  /**
   * A state as the node last had it (`live` false) or as it arrives now (`live` true); `null` when there is no room
   * for the sensor, here and below.
   */
  vehicle(state: Vehicle, now: number, live: boolean): Sensor | null {
    const sensor = this.#sensor(state.vehicle_id, 'vehicle', state.simulated, now);
    if (!sensor) return null;
    sensor.vehicle = state;
    this.#moved(sensor, state.latitude, state.longitude);
    sensor.headingDeg = state.heading_deg ?? state.yaw_deg ?? sensor.headingDeg;
    this.#heard(sensor, live ? now : state.observed_unix_ms, now);
    return sensor;
  }

  phone(state: Phone, now: number, live: boolean): Sensor | null {
    const sensor = this.#sensor(state.client_id, 'phone', state.simulated, now);
    if (!sensor) return null;
    sensor.phone = state;
    this.#moved(sensor, state.latitude, state.longitude);
    sensor.headingDeg = state.heading_deg ?? sensor.headingDeg;
    this.#heard(sensor, live ? now : state.last_seen_unix_ms, now);
    return sensor;
  }

  /** Moves a sensor that is known only by its pictures; others report their own position more often. */
  pose(pose: Pose, now: number): Sensor | null {
    const sensor = this.#sensor(pose.sensor_id, 'camera', pose.simulated, now);
    if (!sensor) return null;
    sensor.pose = pose;
    if (sensor.kind === 'camera') {
      this.#moved(sensor, pose.latitude, pose.longitude);
      sensor.headingDeg = pose.heading_deg ?? sensor.headingDeg;
      this.#heard(sensor, now, now);
    } else if (sensor.headingDeg === null) {
      sensor.headingDeg = pose.heading_deg;
    }
    return sensor;
  }

  keyframe(keyframe: Keyframe, now: number): Sensor | null {
    const sensor = this.#sensor(keyframe.sensor_id, 'camera', keyframe.simulated, now);
    if (!sensor) return null;
    sensor.keyframe = keyframe;
    if (sensor.kind === 'camera') {
      this.#moved(sensor, keyframe.latitude, keyframe.longitude);
      this.#heard(sensor, Math.max(keyframe.received_unix_ms, sensor.heardUnixMs ?? 0), now);
    }
    return sensor;
  }

  /** Notices who has gone silent. */
  tick(now: number): void {
    for (const sensor of this.#sensors.values()) {
      if (sensor.silent || sensor.heardUnixMs === null) continue;
      if (now - sensor.heardUnixMs <= SILENT_AFTER_MS[sensor.kind]) continue;
      sensor.silent = true;
      this.#onChange({ kind: 'silent', sensor });
    }
    for (const [id, heard] of this.#hidden) {
      if (now - heard > SILENT_AFTER_MS.camera) this.#hidden.delete(id);
    }
  }

  #sensor(id: string, kind: Kind, simulated: boolean, now: number): Sensor | null {
    let sensor = this.#sensors.get(id);
    if (!sensor) {
      if (!this.#makeRoom()) {
        if (this.#hidden.size < MAX_HIDDEN || this.#hidden.has(id)) this.#hidden.set(id, now);
        return null;
      }
      this.#hidden.delete(id);
      sensor = {
        id,
        kind,
        index: this.#seen,
        vehicle: null,
        phone: null,
        pose: null,
        keyframe: null,
        position: null,
        headingDeg: null,
        heardUnixMs: null,
        silent: false,
        simulated,
        track: [],
      };
      this.#seen += 1;
      this.#sensors.set(id, sensor);
      this.#onChange({ kind: 'appeared', sensor });
    }
    // A camera turns out to be a vehicle or a phone when that reports itself, never the other way round.
    if (kind !== 'camera') sensor.kind = kind;
    sensor.simulated ||= simulated;
    return sensor;
  }

  /** The sensor that is silent for longest goes when there is no other room; `false` when none is silent. */
  #makeRoom(): boolean {
    if (this.#sensors.size < MAX_SENSORS) return true;
    let oldest: Sensor | null = null;
    for (const sensor of this.#sensors.values()) {
      if (!sensor.silent && sensor.heardUnixMs !== null) continue;
      if (!oldest || (sensor.heardUnixMs ?? 0) < (oldest.heardUnixMs ?? 0)) oldest = sensor;
    }
    if (!oldest) return false;
    this.#sensors.delete(oldest.id);
    this.#onGone(oldest);
    return true;
  }

  #moved(sensor: Sensor, latitude: number | null, longitude: number | null): void {
    if (latitude === null || longitude === null) return;
    sensor.position = [longitude, latitude];
    extendTrack(sensor.track, sensor.position, MAX_TRACK_POINTS);
  }

  #heard(sensor: Sensor, at: number | null, now: number): void {
    if (at === null) return;
    sensor.heardUnixMs = Math.min(at, now);
    if (sensor.silent && now - sensor.heardUnixMs <= SILENT_AFTER_MS[sensor.kind]) {
      sensor.silent = false;
      this.#onChange({ kind: 'heard-again', sensor });
    }
  }
}
