// Users and tokens: who may do what.

import { ask } from "./api.js";
import { button, dialog, fill, h, since } from "./dom.js";
import { table } from "./settings.js";
import { full, ownZone } from "./zone.js";

const ROLES = [["viewer", "Viewer: watching, live and recorded"], ["operator", "Operator: everything with streams and recordings"], ["admin", "Administrator: everything"], ["publisher", "Publisher: sending streams"], ["monitor", "Monitor: metrics and states"]];
/** What a role may, for some streams alone. */
const ACTIONS = /** @type {Record<string, string[]>} */ ({
  viewer: ["read", "playback", "api.read"], operator: ["read", "publish", "playback", "record", "api.read", "api.write"], publisher: ["publish"], monitor: ["metrics", "api.read"],
});

/** @param {{actions: string[], streams?: string[], addresses?: string[]}[] | null} permissions */
function words(permissions) {
  if (permissions === null) return "what the user may";
  return permissions.map(({ actions, streams }) => `${actions.includes("admin") ? "everything" : actions.join(", ")}${streams && !streams.includes("*") ? ` of ${streams.join(", ")}` : ""}`).join("; ") || "nothing";
}

/** A role, and for which streams. The first user may do everything. @param {boolean} [first] */
function rights(first = false) {
  const role = h("select", {}, ROLES.filter(([value]) => !first || value === "admin").map(([value, text]) => h("option", { value }, text)));
  const streams = h("input", { placeholder: "all", autocomplete: "off", spellcheck: false });
  const line = h("label", {}, "Only these streams (yard/*, door)", streams);
  role.onchange = () => (line.hidden = role.value === "admin");
  line.hidden = first;
  return {
    lines: [h("label", {}, "Role", role), line],
    config: () => {
      const patterns = streams.value.split(/[\s,]+/).filter(Boolean);
      return patterns.length && role.value !== "admin" ? { permissions: [{ actions: ACTIONS[role.value], streams: patterns }] } : { role: role.value };
    },
  };
}

/** @param {HTMLElement} place @param {import("./api.js").Me} me */
export function accounts(place, me) {
  let ended = false;
  let nobody = false;
  const zone = ownZone();
  const users = h("div");
  const tokens = h("div");
  const secret = h("p", { class: "secret", role: "status", hidden: true });

  const newUser = () => {
    const name = h("input", { required: true, maxLength: 64, autocapitalize: "none", autocomplete: "off" });
    const password = h("input", { type: "password", required: true, autocomplete: "new-password" });
    const may = rights(nobody && me.user === null);
    dialog("A new user", [h("label", {}, "Name", name), h("label", {}, "Password", password), may.lines], "Add", async () => {
      await ask("POST", "api/users", { name: name.value.trim(), password: password.value, ...may.config() });
      await read();
    });
  };
  /** @param {string} name */
  const of = (name) => `api/users/${encodeURIComponent(name)}`;
  const read = async () => {
    const [{ items: found }, { items: keys }] = /** @type {{items: any[]}[]} */ (await Promise.all([ask("GET", "api/users"), ask("GET", "api/tokens")]));
    if (ended) return;
    nobody = found.length === 0;
    fill(
      users,
      found.length === 0
        ? h("p", { class: "dim" }, me.user !== null ? "There are no users beside those of the configuration file." : "There are no users: this machine may do everything, others nothing but what is open. The first user is an administrator.")
        : table(
            "Users",
            ["Name", "May", "State", ""],
            found.map((user) => [
              user.name,
              words(user.permissions),
              user.disabled ? "disabled" : `since ${full(Date.parse(user.created), zone)}`,
              h(
                "span",
                { class: "row" },
                button("Password …", () => {
                  const password = h("input", { type: "password", required: true, autocomplete: "new-password" });
                  dialog(`A new password for ${user.name}`, [h("label", {}, "Password", password)], "Set", () => ask("PATCH", of(user.name), { password: password.value }));
                }),
                button("Rights …", () => {
                  const may = rights();
                  dialog(`What ${user.name} may`, [h("p", {}, `Now: ${words(user.permissions)}`), may.lines], "Set", async () => {
                    await ask("PATCH", of(user.name), may.config());
                    await read();
                  });
                }),
                user.name !== me.user && button(user.disabled ? "Enable" : "Disable", async () => {
                  await ask("PATCH", of(user.name), { disabled: !user.disabled });
                  await read();
                }),
                user.name !== me.user && button("Remove …", () => dialog("Remove a user", [h("p", {}, `${user.name} and their tokens are removed.`)], "Remove", async () => {
                  await ask("DELETE", of(user.name));
                  await read();
                }, "danger")),
              ),
            ]),
          ),
    );
    const own = keys.filter((key) => !key.session);
    fill(
      tokens,
      own.length === 0
        ? h("p", { class: "dim" }, "There are no tokens.")
        : table(
            "Tokens",
            ["Name", "Of", "May", "Ends", "Used", ""],
            own.map((key) => [
              key.name,
              key.user ?? "–",
              words(key.permissions),
              key.expires ? full(Date.parse(key.expires), zone) : "never",
              key.used ? `${since(key.used)} ago` : "never",
              h("span", { class: "row" }, button("Remove", async () => {
                await ask("DELETE", `api/tokens/${encodeURIComponent(key.id)}`);
                await read();
              }, { "aria-label": `Remove the token ${key.name}` })),
            ]),
          ),
    );
  };
  const newToken = () => {
    const name = h("input", { required: true, maxLength: 64, autocomplete: "off" });
    const days = h("input", { type: "number", min: "1", placeholder: "without an end" });
    const may = rights();
    dialog("A new token", [h("label", {}, "Name", name), h("label", {}, "Days", days), may.lines], "Make", async () => {
      const made = await ask("POST", "api/tokens", { name: name.value.trim(), ...(days.value ? { expires_in: `${days.value}days` } : {}), ...may.config() });
      secret.hidden = false;
      fill(secret, `The token ${made.name}, which is shown this once: `, h("code", {}, made.token));
      await read();
    });
  };
  fill(
    place,
    h("section", { class: "card fields" }, h("h2", {}, "Users"), users, h("div", { class: "row start" }, button("New user …", newUser))),
    h("section", { class: "card fields" }, h("h2", {}, "Tokens for programs"), secret, tokens, h("div", { class: "row start" }, button("New token …", newToken))),
  );
  read().catch((error) => fill(users, h("p", { class: "problem" }, error.message)));
  return () => {
    ended = true;
  };
}
