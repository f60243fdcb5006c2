/** Frame-to-tile latency as the node measured it: a summary, and a line of the newest frames. */
import { byId, setText, svg } from './dom';
import { count, duration, since } from './format';

/** Frames in the line; the oldest goes beyond this. */
const RECENT = 80;
const WIDTH = 300;
const HEIGHT = 52;

export interface Summary {
  frames: number;
  p50_ms: number;
  p99_ms: number;
}

/** Points of the line, left to right, scaled so that the slowest frame touches the top. */
export function sparkline(values: number[], width: number, height: number): [number, number][] {
  const top = Math.max(...values, Number.EPSILON);
  const step = width / Math.max(1, values.length - 1);
  return values.map((value, index) => [index * step, height - (value / top) * height]);
}

export class LatencyView {
  readonly #p50 = byId('p50');
  readonly #p99 = byId('p99');
  readonly #note = byId('latency-note');
  readonly #spark = byId<SVGSVGElement>('spark');
  readonly #area = svg('path', { class: 'area' });
  readonly #line = svg('path', { class: 'line' });
  readonly #recent: number[] = [];
  #summary: Summary | null = null;
  #since: string | null = null;

  constructor() {
    this.#spark.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    this.#spark.append(this.#area, this.#line);
  }

  frame(latencyMs: number): void {
    this.#recent.push(latencyMs);
    if (this.#recent.length > RECENT) this.#recent.shift();
    this.#draw();
  }

  summary(summary: Summary | null): void {
    this.#summary = summary && summary.frames > 0 ? summary : null;
    this.#draw();
  }

  /** Says of what time nothing was measured, when nothing was. */
  since(unixMs: number | null): void {
    this.#since = unixMs === null ? null : since(unixMs);
    this.#draw();
  }

  #draw(): void {
    setText(this.#p50, duration(this.#summary?.p50_ms));
    setText(this.#p99, duration(this.#summary?.p99_ms));
    document.documentElement.dataset['latencyFrames'] = String(this.#summary?.frames ?? 0);
    const last = this.#recent.at(-1);
    const parts = [];
    if (this.#summary) parts.push(`${count(this.#summary.frames)} ${this.#summary.frames === 1 ? 'frame' : 'frames'} measured`);
    if (last !== undefined) parts.push(`last ${duration(last)}`);
    const none = this.#since === null ? 'No frames yet' : `No frame since the node started, ${this.#since}`;
    setText(this.#note, parts.join(' · ') || none);
    this.#spark.setAttribute(
      'aria-label',
      last === undefined
        ? none
        : `Latency of the last ${this.#recent.length} frames, slowest ${duration(Math.max(...this.#recent))}`,
    );
    if (this.#recent.length < 2) return;
    const line = sparkline(this.#recent, WIDTH, HEIGHT - 4)
      .map(([x, y], index) => `${index === 0 ? 'M' : 'L'}${x.toFixed(1)} ${(y + 3).toFixed(1)}`)
      .join('');
    this.#line.setAttribute('d', line);
    this.#area.setAttribute('d', `${line}V${HEIGHT}H0Z`);
  }
}
