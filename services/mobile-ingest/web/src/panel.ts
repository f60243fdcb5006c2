/** The list of vehicles and phones, and the state of the chosen one. */
import { byId, element, setText } from './dom';
import type { Sensor } from './fleet';
import { ago, bearing, count, position, quantity, UNKNOWN } from './format';
import { sensorColour } from './theme';

export interface PanelActions {
  select: (id: string | null) => void;
  follow: (id: string | null) => void;
}

interface Row {
  item: HTMLLIElement;
  button: HTMLButtonElement;
  note: HTMLElement;
  value: HTMLElement;
  sim: HTMLElement;
}

/** A vehicle whose last word is older than this says how old. */
const STALE_MS = 2_000;

const KINDS = { vehicle: 'Vehicle', phone: 'Phone', camera: 'Camera' } as const;

export class FleetPanel {
  readonly #list = byId('fleet');
  readonly #none = byId('fleet-none');
  readonly #more = byId('fleet-more');
  readonly #rows = new Map<string, Row>();
  readonly #actions: PanelActions;
  readonly #details: Details;

  constructor(actions: PanelActions) {
    this.#actions = actions;
    this.#details = new Details(actions);
  }

  /** `hidden` is the number of sensors for which there is no room among `sensors`. */
  render(sensors: readonly Sensor[], hidden: number, selected: Sensor | null, followed: string | null, now: number): void {
    this.#none.hidden = sensors.length > 0;
    this.#more.hidden = hidden === 0;
    setText(this.#more, `${count(hidden)} more not shown`);
    for (const sensor of sensors) this.#renderRow(sensor, sensor === selected, now);
    this.#details.render(selected, followed, now);
  }

  remove(id: string): void {
    this.#rows.get(id)?.item.remove();
    this.#rows.delete(id);
  }

  #renderRow(sensor: Sensor, selected: boolean, now: number): void {
    const row = this.#rows.get(sensor.id) ?? this.#add(sensor.id);
    row.button.style.setProperty('--sensor', sensorColour(sensor.index));
    row.button.setAttribute('aria-pressed', String(selected));
    row.item.classList.toggle('silent', sensor.silent);
    row.sim.hidden = !sensor.simulated;
    setText(row.note, summary(sensor, now));
    setText(row.value, headline(sensor));
  }

  #add(id: string): Row {
    const note = element('span', { class: 'note' });
    const value = element('span', { class: 'value' });
    const sim = element('abbr', { class: 'sim', title: 'Simulated' }, 'SIM');
    const name = element('span', { class: 'name' }, element('b', {}, id), sim);
    const button = element(
      'button',
      { type: 'button', class: 'row' },
      element('span', { class: 'dot', 'aria-hidden': 'true' }),
      element('span', { class: 'text' }, name, note),
      value,
    );
    button.addEventListener('click', () => {
      this.#actions.select(button.getAttribute('aria-pressed') === 'true' ? null : id);
    });
    const row = { item: element('li', {}, button), button, note, value, sim };
    this.#rows.set(id, row);
    this.#list.append(row.item);
    return row;
  }
}

function summary(sensor: Sensor, now: number): string {
  const heard = sensor.heardUnixMs === null ? null : now - sensor.heardUnixMs;
  if (sensor.silent) return `Not heard, last ${ago(heard)}`;
  const { vehicle, phone } = sensor;
  if (vehicle) {
    const parts = [
      vehicle.flight_mode ?? KINDS.vehicle,
      quantity(vehicle.ground_speed_mps, ' m/s', 1),
      vehicle.battery_percent === null ? UNKNOWN : `battery ${quantity(vehicle.battery_percent, ' %')}`,
      vehicle.link && vehicle.link.lost > 0 ? `${loss(vehicle.link)} lost` : UNKNOWN,
      heard !== null && heard > STALE_MS ? ago(heard) : UNKNOWN,
    ];
    return parts.filter((part) => part !== UNKNOWN).join(' · ');
  }
  if (phone) return phone.device_model ?? KINDS.phone;
  return `${KINDS[sensor.kind]}, pictures only`;
}

function headline(sensor: Sensor): string {
  const { vehicle, phone } = sensor;
  if (vehicle) return quantity(vehicle.relative_altitude_m ?? vehicle.altitude_m, ' m');
  if (phone) return phone.accuracy_m === null ? '' : `±${quantity(phone.accuracy_m, ' m')}`;
  return quantity(sensor.pose?.height_above_ground_m, ' m');
}

/** Names and values of the chosen sensor, in the order they are shown. */
function facts(sensor: Sensor, now: number): [string, string][] {
  const { vehicle, phone, pose, keyframe } = sensor;
  const heard: [string, string] = ['Last heard', ago(sensor.heardUnixMs === null ? null : now - sensor.heardUnixMs)];
  const where: [string, string] = [
    'Position',
    sensor.position ? position(sensor.position[1], sensor.position[0], 6) : UNKNOWN,
  ];
  const lastFrame: [string, string] = ['Last frame', keyframe ? verdict(keyframe.state, keyframe.reason) : UNKNOWN];
  if (vehicle) {
    return [
      ['Mode', vehicle.flight_mode ?? UNKNOWN],
      ['Armed', vehicle.armed === null ? UNKNOWN : vehicle.armed ? 'Yes' : 'No'],
      ['Battery', quantity(vehicle.battery_percent, ' %')],
      ['Speed', quantity(vehicle.ground_speed_mps, ' m/s', 1)],
      ['Altitude', quantity(vehicle.altitude_m, ' m', 1)],
      ['Above take-off', quantity(vehicle.relative_altitude_m, ' m', 1)],
      ['Heading', bearing(vehicle.heading_deg ?? vehicle.yaw_deg)],
      ['Roll, pitch', `${quantity(vehicle.roll_deg, '°', 1)}, ${quantity(vehicle.pitch_deg, '°', 1)}`],
      ['Link loss', vehicle.link ? loss(vehicle.link) : UNKNOWN],
      ['Messages', count(vehicle.link?.messages)],
      ['Source', vehicle.source],
      heard,
      where,
      lastFrame,
    ];
  }
  if (phone) {
    return [
      ['Device', phone.device_model ?? UNKNOWN],
      ['Streams', phone.streams.join(', ') || UNKNOWN],
      ['Altitude', quantity(phone.altitude_m, ' m', 1)],
      ['Accuracy', quantity(phone.accuracy_m, ' m', 1)],
      ['Heading', bearing(phone.heading_deg)],
      ['Accepted', count(phone.accepted)],
      heard,
      where,
      lastFrame,
    ];
  }
  return [
    ['Altitude', quantity(pose?.altitude_m ?? keyframe?.altitude_m, ' m', 1)],
    ['Above ground', quantity(pose?.height_above_ground_m ?? keyframe?.height_above_ground_m, ' m', 1)],
    ['Heading', bearing(sensor.headingDeg)],
    heard,
    where,
    lastFrame,
  ];
}

function loss({ messages, lost }: { messages: number; lost: number }): string {
  const sent = messages + lost;
  return sent === 0 ? UNKNOWN : `${((100 * lost) / sent).toFixed(1)} %`;
}

export function verdict(state: string, reason: string | null): string {
  return state === 'tracking' ? 'Placed' : `Not placed: ${reason ?? state}`;
}

/** Facts as long as these take a line of their own. */
const WIDE = new Set(['Position', 'Last frame', 'Streams']);

class Details {
  readonly #section = byId('selection');
  readonly #title = element('h2', { id: 'selection-title' });
  readonly #kind = element('span', { class: 'note' });
  readonly #sim = element('span', { class: 'sim' }, 'SIMULATED');
  readonly #follow: HTMLButtonElement;
  readonly #facts = element('dl', { class: 'facts' });
  readonly #values = new Map<string, HTMLElement>();
  #shown: string | null = null;
  #following = false;

  constructor(actions: PanelActions) {
    this.#follow = element('button', { type: 'button', class: 'toggle' }, 'Follow');
    this.#follow.addEventListener('click', () => actions.follow(this.#following ? null : this.#shown));
    const close = element('button', { type: 'button', class: 'close', 'aria-label': 'Close the details' }, '×');
    close.addEventListener('click', () => actions.select(null));
    const head = element('div', { class: 'names' }, this.#title, element('p', {}, this.#kind, this.#sim));
    this.#section.append(element('header', {}, head, this.#follow, close), this.#facts);
  }

  render(sensor: Sensor | null, followed: string | null, now: number): void {
    this.#section.hidden = sensor === null;
    if (!sensor) {
      this.#shown = null;
      return;
    }
    const shape = `${sensor.id} ${sensor.kind}`;
    this.#section.style.setProperty('--sensor', sensorColour(sensor.index));
    this.#following = followed === sensor.id;
    this.#follow.setAttribute('aria-pressed', String(this.#following));
    setText(this.#follow, this.#following ? 'Following' : 'Follow');
    setText(this.#title, sensor.id);
    setText(this.#kind, sensor.silent ? `${KINDS[sensor.kind]}, not heard` : KINDS[sensor.kind]);
    this.#sim.hidden = !sensor.simulated;
    const rows = facts(sensor, now);
    if (this.#section.dataset['shape'] !== shape) {
      this.#section.dataset['shape'] = shape;
      this.#values.clear();
      this.#facts.replaceChildren();
      for (const [name] of rows) {
        const value = element('dd');
        this.#values.set(name, value);
        this.#facts.append(element('div', WIDE.has(name) ? { class: 'wide' } : {}, element('dt', {}, name), value));
      }
    }
    this.#shown = sensor.id;
    for (const [name, value] of rows) {
      const target = this.#values.get(name);
      if (target) setText(target, value);
    }
  }
}
