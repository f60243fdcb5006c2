/** Asks for the access token: once from readers of other machines, and from whoever wants to send something. */
import { openSession } from './api';
import { byId, setText } from './dom';

export class Login {
  readonly #dialog = byId<HTMLDialogElement>('login');
  readonly #input = byId<HTMLInputElement>('token');
  readonly #error = byId('login-error');
  readonly #why = byId('login-why');
  #writer: ((token: string | null) => void) | null = null;

  constructor(onDone: () => void) {
    const form = this.#dialog.querySelector('form')!;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#writer) this.#answer(this.#input.value.trim());
      else void this.#submit(onDone);
    });
    this.#dialog.addEventListener('cancel', (event) => {
      // Without a token there is nothing to see behind the dialog; sending can wait.
      event.preventDefault();
      if (this.#writer) this.#answer(null);
    });
    byId('login-cancel').addEventListener('click', () => this.#answer(null));
  }

  /** The token, for sending pictures; it stays in this page. `null` when the person closes the dialog. */
  askToWrite(wrong: boolean): Promise<string | null> {
    setText(this.#why, 'Sending pictures needs it. The node\u2019s log names the file that holds it.');
    setText(this.#error, wrong ? 'The node does not know this token.' : '');
    byId('login-cancel').hidden = false;
    this.ask();
    return new Promise((resolve) => {
      this.#writer = resolve;
    });
  }

  #answer(token: string | null): void {
    const writer = this.#writer;
    this.#writer = null;
    this.#input.value = '';
    byId('login-cancel').hidden = true;
    this.#dialog.close();
    writer?.(token);
  }

  ask(): void {
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  async #submit(onDone: () => void): Promise<void> {
    try {
      if (await openSession(this.#input.value.trim())) {
        this.#input.value = '';
        this.#dialog.close();
        onDone();
      } else {
        setText(this.#error, 'The node does not know this token.');
        this.#input.select();
      }
    } catch {
      setText(this.#error, 'The node did not answer. Try again.');
    }
  }
}
