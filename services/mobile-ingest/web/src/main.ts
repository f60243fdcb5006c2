/** Wires the node's routes and events to the map and the panel. */
import 'maplibre-gl/dist/maplibre-gl.css';
import * as api from './api';
import { Commits } from './commits';
import { byId, setText } from './dom';
import { loadEarth } from './earth';
import { Feed } from './feed';
import { type Change, Fleet, type Sensor } from './fleet';
import { count, duration, meshNews, since } from './format';
import { KeyframeList } from './keyframes';
import { LatencyView } from './latency';
import { Locator } from './locator';
import { Login } from './login';
import { ABOVE_IMAGERY, MapView, type Padding } from './map';
import { Markers } from './markers';
import { everything, Turns } from './overview';
import { paced, persistent, throttled } from './pace';
import { FleetPanel, verdict } from './panel';
import { onThemeChange, sensorColour } from './theme';
import { LiveTiles } from './tiles';
import { Upload } from './upload';

const LAYER = 'imagery';
/** Keyframes on the map; the node keeps more. */
const KEYFRAMES = 300;
/** Frame ids whose verdict has been told; the oldest are forgotten. */
const MAX_TOLD = 2_000;
const PANEL_EVERY_MS = 250;
const MAP_EVERY_MS = 1_000;
/** The whole state is read again at most this often, however often events are missed. */
const RELOAD_EVERY_MS = 2_000;
const FIT_EVERY_MS = 1_500;
/** After a connection, everyone gets this long to be heard. */
const SETTLE_MS = 5_000;
/** Ticks of a second that are so far apart tell that the page was held up. */
const SLEPT_MS = 2_500;
/** What nothing may tell of, or only an event that may be lost, is read this often. */
const LOOK_EVERY_MS = 10_000;
/** The page opens without knowing what the map holds when nobody says so in this time. */
const OPENING_MS = 1_500;
/** Waits before the base map is asked for again double from the first to the last of these. */
const EARTH_FIRST_MS = 1_000;
const EARTH_LAST_MS = 60_000;
const NARROW = matchMedia('(max-width: 760px)');

const root = document.documentElement;
const feed = new Feed();
const latency = new LatencyView();
const commits = new Commits();
const turns = new Turns();
const keyframes = new KeyframeList(KEYFRAMES);
/** A link that was sent opens at its own view; looked at before the map writes its first one. */
const opensAtView = location.hash.includes('view=');
/** The page opens on what the map holds, which is asked for before anything is drawn: a globe takes a second to draw. */
const opening = await api.layer(LAYER, AbortSignal.timeout(OPENING_MS)).catch(() => null);
const view = new MapView(byId('map'), padding());
const login = new Login(() => location.reload());

let selected: string | null = null;
let followed: string | null = null;
let imagery: api.Bounds | null = null;
/** Frames whose verdict is known; `null` before the first look. */
let told: Set<string> | null = null;
let userMoved = opensAtView;
let everLive = false;
/** When the node began to count, and the tiles of the layer; `null` while unknown. */
let startedAt: number | null = null;
let mapped: number | null = null;
let liveSince: number | null = null;
let loaded = false;
/** Whether the stream went on where it had ended. */
let resumed = false;
/** Whether the mesh gateway answered; one that does not is asked again after the next connection. */
let meshed = false;

const upload = new Upload({ token: (wrong) => login.askToWrite(wrong), onPlaced: () => (userMoved = false) });
const panel = new FleetPanel({ select, follow: followSensor });
const markers = new Markers(view.map, select);
const fleet = new Fleet(sensorChanged, (sensor) => {
  markers.remove(sensor.id);
  panel.remove(sensor.id);
  if (selected === sensor.id) select(null);
});
const tiles = new LiveTiles(view.map, {
  name: LAYER,
  before: ABOVE_IMAGERY,
  onCount: (loadedTiles) => {
    root.dataset['tiles'] = String(loadedTiles);
  },
  onUnauthorized: () => login.ask(),
});

const renderPanel = throttled(PANEL_EVERY_MS, () => {
  const now = Date.now();
  const sensor = selected === null ? null : fleet.get(selected);
  panel.render(fleet.sensors, fleet.hidden, sensor, followed, now);
  byId('empty').hidden = !loaded || fleet.sensors.length > 0 || imagery !== null;
});
const renderTracks = throttled(MAP_EVERY_MS, () => view.setTracks(fleet.sensors));
const renderKeyframes = throttled(MAP_EVERY_MS, () => {
  view.setKeyframes(keyframes.all, (id) => fleet.get(id)?.index ?? 0);
});
const readKeyframes = paced(RELOAD_EVERY_MS, () => quietly(loadKeyframes()));
const reload = paced(RELOAD_EVERY_MS, loadState);
/** The tiles that an event names say enough of the layer, but for the first and for where it ends. */
const refreshLayer = throttled(MAP_EVERY_MS, () => imagery ?? void quietly(loadLayer()));
const refreshTiles = paced(RELOAD_EVERY_MS, async () => tiles.refreshAll());

function sensorChanged({ kind, sensor }: Change): void {
  const colour = sensorColour(sensor.index);
  const name = `${sensor.id}${sensor.simulated ? ' (simulated)' : ''}`;
  if (kind === 'appeared') feed.add({ tone: 'good', colour, text: () => `${name} first seen` });
  if (kind === 'silent') feed.add({ tone: 'warn', colour, text: () => `${sensor.id} is not heard any more` });
  if (kind === 'heard-again') feed.add({ tone: 'good', colour, text: () => `${sensor.id} is heard again` });
}

/** Shows what changed of a sensor; nothing when there is no room for it. */
function show(sensor: Sensor | null): void {
  if (!sensor) {
    renderPanel();
    return;
  }
  markers.update(sensor, sensor.id === selected);
  if (sensor.simulated) showSimulated();
  if (sensor.id === followed && sensor.position) view.followTo(sensor.position);
  renderPanel();
  renderTracks();
}

function select(id: string | null): void {
  const before = selected;
  selected = id;
  if (id === null || followed !== id) followSensor(null);
  for (const changed of [before, id]) {
    const sensor = changed === null ? null : fleet.get(changed);
    if (sensor) markers.update(sensor, sensor.id === selected);
  }
  if (id !== null && NARROW.matches) openSheet(true);
  renderPanel();
}

function followSensor(id: string | null): void {
  followed = id;
  if (id !== null) {
    userMoved = true;
    const position = fleet.get(id)?.position;
    if (position) view.map.easeTo({ center: position, zoom: Math.max(view.map.getZoom(), 17) });
  }
  renderPanel();
}

/** Once any data is simulated, the page says so for as long as it is open. */
function showSimulated(): void {
  byId('simulated').hidden = false;
}

function toShow(): api.Bounds | null {
  // Where a picture of a card was taken matters until there is a map, and never more than the map.
  const matters = ({ kind, silent }: Sensor) => !silent && (kind !== 'camera' || imagery === null);
  const live = fleet.sensors.flatMap((sensor) => (sensor.position && matters(sensor) ? [sensor.position] : []));
  return everything(imagery, live);
}

function turnTo(bounds: api.Bounds, how: 'jump' | 'fly' = 'fly'): void {
  turns.to(bounds);
  view.fit(bounds, how);
}


/** Flies to the data when it first appears or outgrows the view, until the reader moves the map. */
function fitUntilMoved(): void {
  if (userMoved || view.map.isMoving()) return;
  const bounds = toShow();
  if (bounds && turns.due(bounds, view.shows(bounds))) turnTo(bounds);
}

async function loadLayer(): Promise<void> {
  const looked = commits.look();
  const layer = await api.layer(LAYER);
  if (looked(layer.last_change)) refreshTiles();
  showLayer(layer);
}

function showLayer(layer: api.Layer): void {
  mapped = layer.tile_count;
  tellSince();
  if (!layer.bounds) return;
  imagery = layer.bounds;
  tiles.setZooms(layer.minzoom, layer.maxzoom);
  if (layer.simulated) showSimulated();
  renderPanel();
}

/** Reads the newest keyframes as a list; the stream tells what comes after. */
async function loadKeyframes(): Promise<void> {
  keyframes.reading();
  let list: api.Keyframes | null = null;
  try {
    list = await api.keyframes(KEYFRAMES);
  } finally {
    if (!keyframes.read(list)) readKeyframes();
  }
  judged(keyframes.all);
}

function keyframesSaid(increment: api.Keyframes): void {
  if (keyframes.add(increment)) judged(increment.keyframes);
  else readKeyframes();
}

/** Shows what became of these frames; verdicts given since the page was opened go to the feed. */
function judged(newest: readonly api.Keyframe[]): void {
  const tell = told !== null;
  upload.take(newest);
  told ??= new Set();
  const now = Date.now();
  for (const keyframe of newest) {
    const sensor = fleet.keyframe(keyframe, now);
    if (told.has(keyframe.frame_id)) continue;
    told.add(keyframe.frame_id);
    if (tell) tellVerdict(keyframe, sensor);
    show(sensor);
  }
  if (told.size > MAX_TOLD) told = new Set(keyframes.all.map((keyframe) => keyframe.frame_id));
  renderKeyframes();
}

function tellVerdict(keyframe: api.Keyframe, sensor: Sensor | null): void {
  const placed = keyframe.state === 'tracking';
  const text = verdict(keyframe.state, keyframe.reason);
  feed.add({
    tone: placed ? 'calm' : 'warn',
    ...(sensor && { colour: sensorColour(sensor.index) }),
    same: `keyframe ${keyframe.sensor_id} ${text}`,
    text: (times) =>
      placed
        ? `${keyframe.sensor_id}: ${times === 1 ? 'frame placed' : `${times} frames placed`}`
        : `${keyframe.sensor_id}: frame not placed${times > 1 ? ` (${times} times)` : ''}: ${keyframe.reason ?? keyframe.state}`,
  });
}

async function loadMesh(): Promise<void> {
  try {
    const { peers } = await api.mesh();
    meshed = true;
    setText(byId('count-peers'), count(peers.length));
  } catch (error) {
    // Without a gateway the number of peers is unknown.
    meshed = false;
    setText(byId('count-peers'), count(null));
    throw error;
  }
}

async function loadStats(): Promise<void> {
  const stats = await api.stats();
  showNode(stats.node);
  if (stats.simulated) showSimulated();
  setText(byId('count-frames'), count(stats.paint?.frames_painted));
  setText(byId('count-tiles'), count(stats.paint?.tiles_written));
  const since = stats.paint?.since_unix_ms ?? null;
  latency.since(since);
  latency.summary(stats.paint?.latency ?? null);
  startedAt = since;
  tellSince();
}

/** What the counts count, and what was there before. */
function tellSince(): void {
  const parts = [];
  if (startedAt !== null) parts.push(`Counted since ${since(startedAt)}`);
  if (mapped !== null) parts.push(`${count(mapped)} ${mapped === 1 ? 'tile' : 'tiles'} on the map`);
  setText(byId('count-since'), parts.join(' · '));
}

function showNode(name: string): void {
  setText(byId('node'), name);
  document.title = `${name} · Sovereign Map`;
}

/** The state of everything by its routes: events are only what happens after. */
async function loadState(): Promise<void> {
  const now = Date.now();
  const parts = [
    api.vehicles().then((list) => list.forEach((state) => show(fleet.vehicle(state, now, false)))),
    api.phones().then((list) => list.forEach((state) => show(fleet.phone(state, now, false)))),
    loadStats(),
    loadLayer(),
    loadMesh(),
  ];
  await Promise.all(parts.map(quietly));
  if (!resumed || !keyframes.isRead) await quietly(loadKeyframes());
  tiles.refreshAll();
  loaded = true;
  renderPanel();
  fitUntilMoved();
}

/** A failed read is tried again with the next event or connection; a missing token is asked for. */
async function quietly(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (error instanceof api.Unauthorized) login.ask();
    else console.debug('read', error);
  }
}

function tileChanged(change: api.TileChange): void {
  if (commits.told(change.sequence)) refreshTiles();
  if (change.layer !== LAYER) return;
  tiles.changed(change.tiles);
  if (change.latency_ms > 0) latency.frame(change.latency_ms);
  if (change.simulated) showSimulated();
  refreshLayer();
  const sensors = [...new Set(change.frames.map((frame) => frame.sensor_id))];
  const from = sensors.join(', ') || 'map';
  const sensor = sensors.length === 1 ? fleet.get(sensors[0]!) : undefined;
  feed.add({
    tone: 'calm',
    ...(sensor && { colour: sensorColour(sensor.index) }),
    same: `tiles ${from}`,
    amount: change.tiles.length,
    text: (times, sum) => {
      const commits = times === 1 ? '' : ` in ${times} commits`;
      const after = change.latency_ms > 0 ? `, ${duration(change.latency_ms)}` : '';
      return `${from}: ${count(sum)} ${sum === 1 ? 'tile' : 'tiles'}${commits} painted${after}`;
    },
  });
}

function meshEvent(event: api.MeshEvent): void {
  const simulated = event.kind === 'tile' && event.simulated;
  feed.add({
    tone: 'calm',
    same: `mesh ${event.kind} ${event.peer_id} ${simulated}`,
    text: (times) => meshNews(event, times),
  });
}

const LINK_TEXT: Record<api.LinkState, string> = {
  connecting: 'Connecting',
  live: 'Live',
  reconnecting: 'Reconnecting',
  unauthorized: 'Token needed',
  paused: 'Paused',
};

function linkChanged(state: api.LinkState): void {
  const before = root.dataset['link'];
  root.dataset['link'] = state;
  liveSince = state === 'live' ? Date.now() : null;
  setText(byId('link-text'), LINK_TEXT[state]);
  if (state === 'unauthorized') login.ask();
  if (state === 'reconnecting' && everLive) {
    feed.add({ tone: 'bad', text: () => 'Connection to the node lost' });
  }
  if (state === 'live') {
    if (everLive && before !== 'paused') feed.add({ tone: 'good', text: () => 'Connection restored' });
    everLive = true;
  }
}

/** What the panel covers, so that the map's middle is the middle of what is seen. */
function padding(): Padding {
  if (matchMedia('(max-width: 760px)').matches) return { top: 64, right: 0, bottom: 150, left: 0 };
  return { top: 72, right: 376, bottom: 24, left: 16 };
}

function openSheet(open: boolean): void {
  byId('panel').classList.toggle('open', open);
  byId('sheet').setAttribute('aria-expanded', String(open));
}

function wirePage(): void {
  const { map } = view;
  for (const event of ['dragstart', 'wheel', 'dblclick', 'rotatestart', 'boxzoomstart', 'touchmove'] as const) {
    map.on(event, () => {
      userMoved = true;
      if (event === 'dragstart') followSensor(null);
    });
  }
  map.getCanvas().addEventListener('keydown', (event) => {
    if (!event.key.startsWith('Arrow')) return;
    userMoved = true;
    followSensor(null);
  });
  map.on('click', () => select(null));
  const fitAll = () => {
    followSensor(null);
    userMoved = false;
    const bounds = toShow();
    if (bounds) turnTo(bounds);
  };
  const zoom = (by: number) => {
    userMoved = true;
    map.easeTo({ zoom: map.getZoom() + by });
  };
  byId('fit').addEventListener('click', fitAll);
  byId('zoom-in').addEventListener('click', () => zoom(1));
  byId('zoom-out').addEventListener('click', () => zoom(-1));
  byId('sheet').addEventListener('click', () => openSheet(!byId('panel').classList.contains('open')));
  NARROW.addEventListener('change', () => {
    turns.forget();
    view.setPadding(padding());
  });
  map.on('resize', () => turns.forget());
  document.addEventListener('keydown', (event) => {
    if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === 'Escape' && selected !== null) {
      markers.focus(selected);
      select(null);
    }
    if (event.key === 'f' || event.key === 'F') fitAll();
  });
  setText(
    byId('snippet-curl'),
    `curl --insecure --header "Authorization: Bearer $(cat TOKEN_FILE)" --header "Content-Type: image/jpeg" --data-binary @picture.jpg ${location.origin}/api/v1/drones/my-drone/captures`,
  );
  for (const button of document.querySelectorAll<HTMLButtonElement>('.copy')) {
    button.addEventListener('click', () => {
      const text = byId(button.dataset['copy'] ?? '').textContent ?? '';
      void navigator.clipboard.writeText(text).then(() => {
        setText(button, 'Copied');
        setTimeout(() => setText(button, 'Copy'), 1500);
      });
    });
  }
}

async function main(): Promise<void> {
  wirePage();
  if (opening?.bounds && !opensAtView) turnTo(opening.bounds, 'jump');
  view.map.once('load', () => {
    byId('loading').hidden = true;
  });
  await view.ready();
  if (opening) showLayer(opening);
  const noEarth = (error: unknown) => {
    console.debug('base map', error);
    feed.add({ tone: 'warn', same: 'base map', text: () => 'The base map could not be loaded, trying again' });
  };
  void persistent(EARTH_FIRST_MS, EARTH_LAST_MS, loadEarth, noEarth).then((earth) => {
    view.setEarth(earth);
    const locator = new Locator(earth);
    const locate = () => {
      const { lng, lat } = view.map.getCenter().wrap();
      view.setHome(locator.show([lng, lat], view.map.getZoom()));
    };
    view.map.on('moveend', locate);
    onThemeChange(locate);
    locate();
  });
  let ticked = Date.now();
  setInterval(() => {
    const now = Date.now();
    // A page that slept has news waiting that it has not read yet.
    if (liveSince !== null && now - ticked > SLEPT_MS) liveSince = now;
    ticked = now;
    // Silence says nothing about a vehicle while the page itself hears nothing.
    if (liveSince !== null && now - liveSince > SETTLE_MS) fleet.tick(now);
    for (const sensor of fleet.sensors) markers.update(sensor, sensor.id === selected);
    renderPanel();
  }, 1_000);
  setInterval(fitUntilMoved, FIT_EVERY_MS);
  setInterval(() => {
    if (liveSince === null) return;
    void quietly(loadLayer());
    if (meshed) void quietly(loadMesh());
  }, LOOK_EVERY_MS);
  await api.follow(
    {
      hello: (event) => {
        showNode(event.node);
        resumed = event.resumed;
        reload();
      },
      missed: ({ events }) => {
        feed.add({
          tone: 'warn',
          same: 'missed',
          amount: events,
          text: (_, sum) => `${count(sum)} ${sum === 1 ? 'event' : 'events'} missed, state read again`,
        });
        resumed = false;
        reload();
      },
      vehicle: (state) => show(fleet.vehicle(state, Date.now(), true)),
      phone: (state) => show(fleet.phone(state, Date.now(), true)),
      pose: (pose) => show(fleet.pose(pose, Date.now())),
      keyframes: keyframesSaid,
      tile: tileChanged,
      mesh: meshEvent,
      latency: (summary) => {
        setText(byId('count-frames'), count(summary.frames_painted));
        setText(byId('count-tiles'), count(summary.tiles_written));
        latency.summary(summary);
      },
    },
    linkChanged,
  );
}

void main();
