// Who somebody is: signing in, and making the first user.

import { ask, Refused } from "./api.js";
import { fill, h } from "./dom.js";

/**
 * Shows the form until somebody has signed in.
 * @param {HTMLElement} place
 * @param {() => void} done
 */
export async function signin(place, done) {
  const setup = await ask("GET", "api/setup").catch(() => ({ needed: false }));
  const problem = h("p", { class: "problem", role: "alert" });
  /** @param {string} label @param {Record<string, any>} properties */
  const field = (label, properties) => {
    const input = h("input", { required: true, ...properties });
    return { input, line: h("label", {}, label, input) };
  };
  const code = field("Code", { name: "code", autocomplete: "one-time-code", placeholder: "abcd-efgh-jkmn" });
  const name = field("Name", { name: "username", autocomplete: "username", maxLength: 64, autocapitalize: "none" });
  const password = field("Password", {
    name: "password",
    type: "password",
    autocomplete: setup.needed ? "new-password" : "current-password",
  });
  const go = h("button", { type: "submit" }, setup.needed ? "Make the first user" : "Sign in");
  const send = async (/** @type {Event} */ event) => {
    event.preventDefault();
    go.setAttribute("aria-busy", "true");
    fill(problem);
    const who = { name: name.input.value, password: password.input.value };
    try {
      if (setup.needed) {
        await ask("POST", "api/setup", setup.code_needed ? { ...who, code: code.input.value } : who);
      } else {
        await ask("POST", "api/login", who);
      }
      done();
    } catch (error) {
      const wrong = error instanceof Refused && error.status === 401 && !setup.needed;
      fill(problem, wrong ? "Name or password is wrong." : String(/** @type {Error} */ (error).message));
      password.input.select();
    } finally {
      go.removeAttribute("aria-busy");
    }
  };
  fill(
    place,
    h(
      "form",
      { class: "signin card", onsubmit: send },
      h("h1", {}, setup.needed ? "Welcome" : "Sign in"),
      setup.needed &&
        h("p", {}, "There is no user yet. Make the first one, who may do everything", setup.code_needed ? ", with the code that the server printed when it started." : "."),
      setup.needed && setup.code_needed && code.line,
      name.line,
      password.line,
      problem,
      go,
    ),
  );
  (setup.needed && setup.code_needed ? code : name).input.focus();
}
