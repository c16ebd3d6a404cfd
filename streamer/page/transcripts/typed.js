// Lines that a person types: what stands in the field is the utterance so far, Enter ends it.

const INTERIM_MS = 150;

export class TypedTranscript {
  #field;
  #send;
  #line = 1;
  #revision = 0;
  #timer = 0;
  #listening = new AbortController();

  constructor(field, send) {
    this.#field = field;
    this.#send = send;
    const { signal } = this.#listening;
    const onInput = (/** @type {Event} */ event) => {
      clearTimeout(this.#timer);
      // While an input method is composing, the field holds letters that nobody means.
      const isComposing = /** @type {InputEvent} */ (event).isComposing;
      if (!isComposing) this.#timer = setTimeout(() => this.#tell(false), INTERIM_MS);
    };
    field.addEventListener("input", onInput, { signal });
    field.addEventListener("compositionend", () => this.#tell(false), { signal });
  }

  /** End the line. */
  submit() {
    clearTimeout(this.#timer);
    if (!this.#field.value.trim() && !this.#revision) return;
    this.#tell(true);
    this.#field.value = "";
    this.#line += 1;
    this.#revision = 0;
  }

  /** Whatever stands in the field is final. */
  end() {
    this.submit();
    this.#listening.abort();
  }

  #tell(final) {
    this.#revision += 1;
    const text = this.#field.value.trim();
    this.#send({ utterance: `t${this.#line}`, revision: this.#revision, final, text });
  }
}
