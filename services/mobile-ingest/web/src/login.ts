/** Asks for the access token once, when the node wants one from readers of this machine. */
import { openSession } from './api';
import { byId, setText } from './dom';

export class Login {
  readonly #dialog = byId<HTMLDialogElement>('login');
  readonly #input = byId<HTMLInputElement>('token');
  readonly #error = byId('login-error');

  constructor(onDone: () => void) {
    const form = this.#dialog.querySelector('form')!;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#submit(onDone);
    });
    // Without a token there is nothing to see behind the dialog.
    this.#dialog.addEventListener('cancel', (event) => event.preventDefault());
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
