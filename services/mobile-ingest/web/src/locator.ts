/** The small globe: it turns to where the map looks, and names the country. */
import type { Position } from 'geojson';
import type { LngLat } from './api';
import { countryAt, type Earth } from './earth';
import { position } from './format';
import { palette } from './theme';

const RADIANS = Math.PI / 180;

export class Locator {
  readonly #figure = document.querySelector<HTMLElement>('#locator')!;
  readonly #canvas = document.querySelector<HTMLCanvasElement>('#globe')!;
  readonly #place = document.querySelector<HTMLElement>('#place')!;
  readonly #where = document.querySelector<HTMLElement>('#where')!;
  readonly #earth: Earth;

  constructor(earth: Earth) {
    this.#earth = earth;
  }

  /** Shows the globe with `centre` in its middle; returns the index of the country there. */
  show(centre: LngLat, zoom: number): number | null {
    // On the globe view itself the small one has nothing to add.
    this.#figure.hidden = zoom < 4.5;
    const found = countryAt(this.#earth, centre);
    const name = found?.country.properties.name ?? 'Open sea';
    this.#place.textContent = found?.near ? `Near ${name}` : name;
    this.#where.textContent = position(centre[1], centre[0], zoom > 14 ? 4 : 2);
    if (!this.#figure.hidden) this.#draw(centre);
    return found && !found.near ? Number(found.country.id) : null;
  }

  #draw(centre: LngLat): void {
    const context = this.#canvas.getContext('2d');
    if (!context) return;
    const colours = palette();
    const size = this.#canvas.width;
    const middle = size / 2;
    const radius = middle - 4;
    const project = orthographic(centre, middle, radius);
    context.clearRect(0, 0, size, size);
    context.beginPath();
    context.arc(middle, middle, radius, 0, 2 * Math.PI);
    context.fillStyle = colours.water;
    context.fill();
    context.save();
    context.clip();
    context.beginPath();
    for (const country of this.#earth.countries.features) {
      const { geometry } = country;
      const polygons = geometry.type === 'Polygon' ? [geometry.coordinates] : geometry.coordinates;
      for (const rings of polygons) trace(context, rings[0] ?? [], project);
    }
    context.fillStyle = colours.coast;
    context.fill();
    context.restore();
    context.beginPath();
    context.arc(middle, middle, radius, 0, 2 * Math.PI);
    context.strokeStyle = colours.coast;
    context.lineWidth = 2;
    context.stroke();
    const accent = getComputedStyle(this.#canvas).getPropertyValue('--accent');
    context.beginPath();
    context.arc(middle, middle, 13, 0, 2 * Math.PI);
    context.strokeStyle = accent;
    context.stroke();
    context.beginPath();
    context.arc(middle, middle, 5, 0, 2 * Math.PI);
    context.fillStyle = accent;
    context.fill();
  }
}

type Projected = { x: number; y: number; visible: boolean };

/** The sphere from far away; what is behind the edge is moved onto the edge so that outlines stay closed. */
function orthographic([lng0, lat0]: LngLat, middle: number, radius: number): (point: Position) => Projected {
  const sin0 = Math.sin(lat0 * RADIANS);
  const cos0 = Math.cos(lat0 * RADIANS);
  return ([lng = 0, lat = 0]) => {
    const sin = Math.sin(lat * RADIANS);
    const cos = Math.cos(lat * RADIANS);
    const turn = (lng - lng0) * RADIANS;
    let x = cos * Math.sin(turn);
    let y = cos0 * sin - sin0 * cos * Math.cos(turn);
    const visible = sin0 * sin + cos0 * cos * Math.cos(turn) >= 0;
    if (!visible) {
      const length = Math.hypot(x, y) || 1;
      x /= length;
      y /= length;
    }
    return { x: middle + radius * x, y: middle - radius * y, visible };
  };
}

function trace(context: CanvasRenderingContext2D, ring: Position[], project: (point: Position) => Projected): void {
  const points = ring.map(project);
  if (!points.some((point) => point.visible)) return;
  points.forEach((point, index) => {
    if (index === 0) context.moveTo(point.x, point.y);
    else context.lineTo(point.x, point.y);
  });
  context.closePath();
}
