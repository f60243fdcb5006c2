/** The list of what happened, newest first. Repetitions of one thing are counted in the row of the first. */
import { byId, element, setText } from './dom';
import { clock } from './format';

export type Tone = 'calm' | 'good' | 'warn' | 'bad';

export interface Entry {
  tone: Tone;
  /** What happened, given how often it did and the sum of the amounts. */
  text: (times: number, sum: number) => string;
  /** How much of it; of repetitions in one row the amounts are added. */
  amount?: number;
  /** Colour of the sensor it is about. */
  colour?: string;
  /** Entries of one kind and subject share a row while that row is recent. */
  same?: string;
}

/** The oldest row goes beyond this. */
const MAX_ROWS = 120;
/** A row can still take a repetition while it is among so many newest rows and so young. */
const MERGE_ROWS = 10;
const MERGE_MS = 30_000;

interface Row {
  same: string | undefined;
  times: number;
  sum: number;
  since: number;
  item: HTMLLIElement;
  text: HTMLSpanElement;
}

export class Feed {
  readonly #list = byId('feed');
  readonly #none = byId('feed-none');
  readonly #rows: Row[] = [];

  add(entry: Entry, now = Date.now()): void {
    const amount = entry.amount ?? 0;
    this.#none.hidden = true;
    const row = entry.same === undefined ? undefined : this.#repeated(entry.same, now);
    if (row) {
      row.times += 1;
      row.sum += amount;
      setText(row.text, entry.text(row.times, row.sum));
      return;
    }
    const time = element('time', { datetime: new Date(now).toISOString() }, clock(now));
    const text = element('span', { class: 'what' }, entry.text(1, amount));
    const dot = element('span', { class: 'dot', 'aria-hidden': 'true' });
    if (entry.colour) dot.style.background = entry.colour;
    const item = element('li', { class: `tone-${entry.tone}` }, dot, text, time);
    this.#list.prepend(item);
    this.#rows.unshift({ same: entry.same, times: 1, sum: amount, since: now, item, text });
    while (this.#rows.length > MAX_ROWS) this.#rows.pop()?.item.remove();
  }

  #repeated(same: string, now: number): Row | undefined {
    return this.#rows.slice(0, MERGE_ROWS).find((row) => row.same === same && now - row.since < MERGE_MS);
  }
}
