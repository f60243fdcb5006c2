/** Pictures that this browser has sent before, so that a folder that is dropped again goes on where it was. */

const KEY = 'sent-pictures';
/** Pictures remembered; the one sent longest ago is forgotten, and would be sent once more. */
const MAX_REMEMBERED = 4_000;

/** What is used of `localStorage`. */
export type Memory = Pick<Storage, 'getItem' | 'setItem'>;

export class SentPictures {
  readonly #memory: Memory;
  readonly #frames: Map<string, string>;

  constructor(memory: Memory) {
    this.#memory = memory;
    this.#frames = new Map(read(memory));
  }

  /** The frame that the picture with this digest became at the node. */
  frame(digest: string): string | undefined {
    return this.#frames.get(digest);
  }

  add(digest: string, frameId: string): void {
    this.#frames.set(digest, frameId);
    const [oldest] = this.#frames.keys();
    if (this.#frames.size > MAX_REMEMBERED && oldest !== undefined) this.#frames.delete(oldest);
    try {
      this.#memory.setItem(KEY, JSON.stringify([...this.#frames]));
    } catch {
      // Without room or leave to remember, a picture is sent again, and the node knows it.
    }
  }
}

/** The memory of this browser, which it may refuse. */
export function browserMemory(): Memory {
  try {
    return localStorage;
  } catch {
    return { getItem: () => null, setItem: () => undefined };
  }
}

function read(memory: Memory): [string, string][] {
  try {
    const kept: unknown = JSON.parse(memory.getItem(KEY) ?? '[]');
    return Array.isArray(kept) ? kept.filter(isEntry) : [];
  } catch {
    return [];
  }
}

function isEntry(entry: unknown): entry is [string, string] {
  return Array.isArray(entry) && entry.length === 2 && entry.every((part) => typeof part === 'string');
}

/** SHA-256 of a picture, as hexadecimal digits. */
export async function digestOf(picture: Blob): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', await picture.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
