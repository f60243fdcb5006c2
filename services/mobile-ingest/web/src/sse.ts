/** Server-sent events out of text chunks that may end anywhere. */

export interface StreamEvent {
  name: string;
  data: string;
  /** The number that the stream goes on after, of this event or of the last one that had one. */
  lastId: string;
}

/** A line longer than this is not one of ours: the stream is given up rather than buffered. */
const MAX_LINE = 1 << 20;

export class EventStreamParser {
  #rest = '';
  #name = '';
  #data: string[] = [];
  #lastId = '';

  /** Takes a chunk and returns the events that it completes. */
  push(chunk: string): StreamEvent[] {
    this.#rest += chunk;
    const events: StreamEvent[] = [];
    for (;;) {
      const end = this.#rest.search(/[\r\n]/);
      // A carriage return at the very end may be half of a CRLF.
      if (end < 0 || (this.#rest[end] === '\r' && end + 1 === this.#rest.length)) break;
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(this.#rest.startsWith('\r\n', end) ? end + 2 : end + 1);
      if (line === '') this.#finish(events);
      else this.#field(line);
    }
    if (this.#rest.length > MAX_LINE) throw new Error('a line of the event stream is too long');
    return events;
  }

  #finish(events: StreamEvent[]): void {
    if (this.#data.length > 0) events.push({ name: this.#name || 'message', data: this.#data.join('\n'), lastId: this.#lastId });
    this.#name = '';
    this.#data = [];
  }

  #field(line: string): void {
    const colon = line.indexOf(':');
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') this.#name = value;
    else if (field === 'data') this.#data.push(value);
    else if (field === 'id') this.#lastId = value;
  }
}
