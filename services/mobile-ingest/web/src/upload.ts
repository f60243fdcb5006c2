/** Pictures from a card or a phone: dropped onto the page or picked, sent one after the other, a verdict for each. */
import * as api from './api';
import { byId, element, setText } from './dom';
import { count } from './format';
import { browserMemory, digestOf, SentPictures } from './sent';

/** The name under which pictures of this page come in. */
const SENSOR = 'card';
/** Verdicts on earlier pictures that are asked for, and those that are kept in mind. */
const MAX_ASKED = 1_000;
const MAX_SEEN = 4_000;
/** Waits before a picture is sent again double from the first to the last of these. */
const RETRY_FIRST_MS = 1_000;
const RETRY_LAST_MS = 15_000;
/** Pictures listed; of more only the number is shown. */
const MAX_LISTED = 200;

type Outcome = 'placed' | 'waiting' | 'refused';

interface Picture {
  file: File;
  item: HTMLLIElement;
  note: HTMLElement;
}

export interface UploadOptions {
  /** Asks for the token that writing takes; `null` when the person would rather not. */
  token: (wrong: boolean) => Promise<string | null>;
  onPlaced: () => void;
}

export class Upload {
  readonly #options: UploadOptions;
  readonly #section = byId('upload');
  readonly #list = byId('upload-list');
  readonly #bar = byId<HTMLProgressElement>('upload-bar');
  readonly #note = byId('upload-note');
  readonly #queue: Picture[] = [];
  readonly #sent = new SentPictures(browserMemory());
  /** Sent pictures by their frame, whose verdict has not come. */
  readonly #open = new Map<string, Picture>();
  /** Verdicts on pictures of this name, the newest last. */
  readonly #seen = new Map<string, api.Keyframe>();
  readonly #counts: Record<Outcome, number> = { placed: 0, waiting: 0, refused: 0 };
  #total = 0;
  #token: string | null = null;
  #busy = false;

  constructor(options: UploadOptions) {
    this.#options = options;
    const input = byId<HTMLInputElement>('upload-input');
    byId('upload-pick').addEventListener('click', () => input.click());
    input.addEventListener('change', () => {
      this.add([...(input.files ?? [])]);
      input.value = '';
    });
    document.addEventListener('dragover', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      document.body.classList.add('dropping');
    });
    for (const end of ['dragleave', 'drop', 'dragend'] as const) {
      document.addEventListener(end, () => document.body.classList.remove('dropping'));
    }
    document.addEventListener('drop', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      void filesOf(event.dataTransfer).then((files) => this.add(files));
    });
  }

  add(files: File[]): void {
    for (const file of files) {
      const note = element('span', { class: 'note' }, 'waits for its turn');
      const item = element('li', {}, element('b', {}, file.name), note);
      this.#total += 1;
      if (this.#total <= MAX_LISTED) this.#list.append(item);
      if (isPicture(file)) this.#queue.push({ file, item, note });
      else this.#settle({ file, item, note }, 'refused', 'is no JPEG, and only JPEG is read');
    }
    this.#section.hidden = this.#total === 0;
    this.#draw();
    void this.#run();
  }

  /** Takes verdicts that the page has read. */
  take(keyframes: readonly api.Keyframe[]): void {
    for (const keyframe of keyframes) {
      if (keyframe.sensor_id !== SENSOR) continue;
      this.#seen.set(keyframe.frame_id, keyframe);
      const [oldest] = this.#seen.keys();
      if (this.#seen.size > MAX_SEEN && oldest !== undefined) this.#seen.delete(oldest);
      const picture = this.#open.get(keyframe.frame_id);
      if (!picture) continue;
      this.#open.delete(keyframe.frame_id);
      this.#judge(picture, keyframe);
    }
  }

  async #run(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    const known = await api.keyframes(MAX_ASKED, SENSOR).catch(() => null);
    this.take(known?.keyframes ?? []);
    for (let picture = this.#queue[0]; picture; picture = this.#queue[0]) {
      if (!(await this.#send(picture))) break;
      this.#queue.shift();
      this.#draw();
    }
    this.#busy = false;
    this.#draw();
  }

  /** Whether the picture is done with; it is not when nobody gives a token. */
  async #send(picture: Picture): Promise<boolean> {
    const digest = await digestOf(picture.file).catch(() => null);
    if (digest === null) {
      this.#settle(picture, 'refused', 'cannot be read');
      return true;
    }
    const before = this.#seen.get(this.#sent.frame(digest) ?? '');
    if (before) {
      this.#judge(picture, before);
      return true;
    }
    let wait = RETRY_FIRST_MS;
    for (;;) {
      this.#token ??= await this.#options.token(false);
      if (this.#token === null) {
        setText(picture.note, 'needs the access token');
        return false;
      }
      setText(picture.note, 'on its way');
      const sent = await api.uploadPicture(SENSOR, picture.file, this.#token).catch(() => null);
      if (sent?.status === 'unauthorized') {
        this.#token = await this.#options.token(true);
        if (this.#token === null) {
          setText(picture.note, 'needs the access token');
          return false;
        }
      } else if (sent?.status === 'refused') {
        this.#settle(picture, 'refused', sent.reason);
        return true;
      } else if (sent?.status === 'accepted') {
        this.#sent.add(digest, sent.frameId);
        this.#wait(picture, sent.frameId);
        return true;
      } else {
        // The link is down or the node is busy: what was sent before stays sent.
        setText(picture.note, 'tried again in a moment');
        await pause(wait);
        wait = Math.min(wait * 2, RETRY_LAST_MS);
      }
    }
  }

  #wait(picture: Picture, frameId: string): void {
    const keyframe = this.#seen.get(frameId);
    if (keyframe) {
      this.#judge(picture, keyframe);
    } else if (this.#open.has(frameId)) {
      this.#settle(picture, 'waiting', 'the same picture as another');
    } else {
      setText(picture.note, 'waits for its verdict');
      this.#open.set(frameId, picture);
    }
  }

  #judge(picture: Picture, keyframe: api.Keyframe): void {
    if (keyframe.state === 'tracking') this.#settle(picture, 'placed', 'on the map');
    else this.#settle(picture, 'waiting', keyframe.reason ?? 'waits for more');
  }

  #settle(picture: Picture, outcome: Outcome, text: string): void {
    this.#counts[outcome] += 1;
    picture.item.dataset['outcome'] = outcome;
    setText(picture.note, text);
    if (outcome === 'placed') this.#options.onPlaced();
    this.#draw();
  }

  #draw(): void {
    const { placed, waiting, refused } = this.#counts;
    this.#bar.max = Math.max(1, this.#total);
    this.#bar.value = this.#total - this.#queue.length;
    const parts = [`${count(this.#total - this.#queue.length)} of ${count(this.#total)} sent`];
    if (placed) parts.push(`${count(placed)} on the map`);
    if (this.#open.size) parts.push(`${count(this.#open.size)} without a verdict yet`);
    if (waiting) parts.push(`${count(waiting)} waiting`);
    if (refused) parts.push(`${count(refused)} refused`);
    setText(this.#note, parts.join(' · '));
  }
}

function isPicture(file: File): boolean {
  return file.type === 'image/jpeg' || /\.jpe?g$/i.test(file.name);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Files that were dropped, those of folders too, by name. */
async function filesOf(transfer: DataTransfer): Promise<File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  if (entries.length === 0) return [...transfer.files];
  const files: File[] = [];
  const visit = async (entry: FileSystemEntry): Promise<void> => {
    if (entry.isFile) {
      files.push(await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject)));
      return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    // A folder is read in parts, until one is empty.
    for (;;) {
      const part = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
      if (part.length === 0) return;
      for (const child of part) await visit(child);
    }
  };
  for (const entry of entries) await visit(entry);
  return files.sort((a, b) => a.name.localeCompare(b.name));
}
