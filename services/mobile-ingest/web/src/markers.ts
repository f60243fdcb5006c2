/** Vehicles and phones on the map. They glide from one measured position to the next, never beyond. */
import { type Map as MapLibreMap, Marker } from 'maplibre-gl';
import type { LngLat } from './api';
import { apart } from './apart';
import { element, setText, svg } from './dom';
import type { Sensor } from './fleet';
import { position, UNKNOWN } from './format';
import { throttled } from './pace';
import { reducedMotion, sensorColour } from './theme';

/** States arrive up to ten times a second; a marker reaches each in this time. */
const GLIDE_MS = 180;
/** A jump further than this many degrees is not a flight and is not animated. */
const JUMP_DEG = 0.01;
/** Those that stand together are moved apart this often while something moves. */
const ARRANGE_EVERY_MS = 200;
/** Units of the drawing of a marker in a pixel. */
const UNITS_PER_PX = 48 / 44;

interface Placed {
  marker: Marker;
  button: HTMLButtonElement;
  pointer: SVGElement;
  /** From the marker to its place, when it was moved aside. */
  stem: SVGElement;
  from: LngLat;
  to: LngLat;
  startedMs: number;
}

export class Markers {
  readonly #map: MapLibreMap;
  readonly #onSelect: (id: string) => void;
  readonly #placed = new Map<string, Placed>();
  readonly #arrange = throttled(ARRANGE_EVERY_MS, () => this.#moveApart());
  #animating = false;

  constructor(map: MapLibreMap, onSelect: (id: string) => void) {
    this.#map = map;
    this.#onSelect = onSelect;
    map.on('move', this.#arrange);
  }

  update(sensor: Sensor, selected: boolean): void {
    if (!sensor.position) return;
    const placed = this.#placed.get(sensor.id) ?? this.#place(sensor, sensor.position);
    const { button, pointer } = placed;
    button.style.setProperty('--sensor', sensorColour(sensor.index));
    button.dataset['kind'] = sensor.kind;
    button.dataset['lng'] = String(sensor.position[0]);
    button.dataset['lat'] = String(sensor.position[1]);
    button.classList.toggle('silent', sensor.silent);
    button.setAttribute('aria-pressed', String(selected));
    button.setAttribute('aria-label', describe(sensor));
    pointer.style.display = sensor.headingDeg === null ? 'none' : '';
    pointer.setAttribute('transform', `rotate(${sensor.headingDeg ?? 0} 24 24)`);
    this.#glide(placed, sensor.position);
    this.#arrange();
  }

  remove(id: string): void {
    this.#placed.get(id)?.marker.remove();
    this.#placed.delete(id);
    this.#count();
    this.#arrange();
  }

  focus(id: string): void {
    this.#placed.get(id)?.button.focus();
  }

  #place(sensor: Sensor, at: LngLat): Placed {
    const pointer = svg('path', { class: 'pointer', d: 'M24 1.5 31.5 14.5A13 13 0 0 0 16.5 14.5Z' });
    const body = svg('circle', { class: 'body', cx: '24', cy: '24', r: '10' });
    const stem = svg('line', { class: 'stem', x1: '24', y1: '24', x2: '24', y2: '24' });
    const shape = svg('svg', { viewBox: '0 0 48 48', class: 'shape', 'aria-hidden': 'true' }, stem, pointer, body, ...glyphs());
    const label = element('span', { class: 'tag' });
    setText(label, sensor.id);
    const button = element('button', { class: 'sensor', type: 'button', 'data-sensor-id': sensor.id });
    button.append(shape, label);
    button.addEventListener('click', (event) => {
      event.stopPropagation();
      this.#onSelect(sensor.id);
    });
    const marker = new Marker({ element: button, anchor: 'center', subpixelPositioning: true, opacityWhenCovered: '0' })
      .setLngLat(at)
      .addTo(this.#map);
    const placed = { marker, button, pointer, stem, from: at, to: at, startedMs: 0 };
    this.#placed.set(sensor.id, placed);
    this.#count();
    return placed;
  }

  #moveApart(): void {
    const spots = [...this.#placed].map(([id, { to }]) => ({ id, ...this.#map.project(to) }));
    for (const [id, { dx, dy, side }] of apart(spots)) {
      const placed = this.#placed.get(id);
      if (!placed) continue;
      placed.marker.setOffset([dx, dy]);
      placed.button.dataset['side'] = side;
      placed.stem.setAttribute('x2', String(24 - dx * UNITS_PER_PX));
      placed.stem.setAttribute('y2', String(24 - dy * UNITS_PER_PX));
    }
  }

  #glide(placed: Placed, to: LngLat): void {
    if (to[0] === placed.to[0] && to[1] === placed.to[1]) return;
    const now = performance.now();
    const from = between(placed, now);
    placed.to = to;
    placed.startedMs = now;
    const far = Math.abs(to[0] - from[0]) > JUMP_DEG || Math.abs(to[1] - from[1]) > JUMP_DEG;
    placed.from = far || reducedMotion() ? to : from;
    if (!this.#animating) {
      this.#animating = true;
      requestAnimationFrame(() => this.#frame());
    }
  }

  #frame(): void {
    const now = performance.now();
    this.#animating = false;
    for (const placed of this.#placed.values()) {
      placed.marker.setLngLat(between(placed, now));
      if (now - placed.startedMs < GLIDE_MS) this.#animating = true;
    }
    if (this.#animating) requestAnimationFrame(() => this.#frame());
  }

  #count(): void {
    document.documentElement.dataset['markers'] = String(this.#placed.size);
  }
}

function between({ from, to, startedMs }: Placed, now: number): LngLat {
  const part = Math.min(1, (now - startedMs) / GLIDE_MS);
  return [from[0] + (to[0] - from[0]) * part, from[1] + (to[1] - from[1]) * part];
}

/** A quadcopter, a phone, and a lens; the style sheet shows the one of the marker's kind. */
function glyphs(): SVGElement[] {
  return [
    svg('path', { class: 'glyph line', 'data-of': 'vehicle', d: 'M20 20l8 8M28 20l-8 8' }),
    svg('rect', { class: 'glyph', 'data-of': 'phone', x: '20.5', y: '18', width: '7', height: '12', rx: '1.8' }),
    svg('circle', { class: 'glyph', 'data-of': 'camera', cx: '24', cy: '24', r: '4' }),
  ];
}

function describe(sensor: Sensor): string {
  const where = sensor.position ? position(sensor.position[1], sensor.position[0]) : UNKNOWN;
  return `${sensor.id}, ${sensor.simulated ? 'simulated, ' : ''}${sensor.silent ? 'not heard, ' : ''}${where}`;
}
