// What the registry holds.

import { get, live } from "./api.js";
import { h, settled } from "./dom.js";
import { bytes, dateTime, fullTime, number, shortCommit, shortDigest } from "./format.js";
import { chip, codeLine, copyButton, empty, failure } from "./ui.js";

export async function images({ root, signal, about }) {
  const body = h("div", { class: "stack" }, h("p", { class: "loading" }, "Loading…"));
  root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Images")), body);
  const read = async () => {
    try {
      const found = await get("images", signal);
      body.replaceChildren(...(found.length ? found.map((image) => card(image, about)) : [empty("No image is configured", h("p", {}, "Add an [[image]] to archweld.toml and start archweld up again."))]));
    } catch (error) {
      if (!signal.aborted) body.replaceChildren(failure(error));
    }
  };
  const refresh = settled(read, 300);
  live.on("bus", (event) => event.source === "aws.ecr" && refresh(), signal);
  live.on("resync", refresh, signal);
  await read();
}

function card(image, about) {
  const badge = `${about.endpoint}/badge/${encodeURIComponent(image.name)}.svg`;
  return h(
    "section",
    { class: "panel image", "aria-label": image.name },
    h(
      "div",
      { class: "panel-head" },
      h("h2", {}, image.name),
      h("code", {}, image.uri),
      h("span", { class: "grow" }),
      h("img", { src: `/badge/${encodeURIComponent(image.name)}.svg?at=${Date.now()}`, alt: `Status badge of ${image.name}`, height: 20 }),
      copyButton(`![${image.name}](${badge})`, "badge as Markdown", "Copy badge"),
    ),
    image.indexes.length
      ? h("ol", { class: "indexes" }, image.indexes.map(index))
      : empty("Nothing is published yet", h("p", {}, h("a", { class: "button primary", href: `#/start?${new URLSearchParams({ input: JSON.stringify(about.images.length > 1 ? { image: image.name } : {}) })}` }, "Start a run"), ` builds it for ${image.platforms.join(", ")}.`)),
    image.total > image.indexes.length && h("p", { class: "dim pad" }, `${number(image.total - image.indexes.length)} older ones are not shown.`),
  );
}

function index(it) {
  return h(
    "li",
    {},
    h(
      "p",
      { class: "wrap" },
      it.tags.length ? it.tags.map((tag) => chip(tag, { class: "chip tag", title: tag })) : h("span", { class: "dim" }, "no tag"),
      h("span", { class: "grow" }),
      it.ref && h("span", { class: "dim" }, it.ref),
      it.revision && h("code", { title: it.revision }, shortCommit(it.revision)),
      h("time", { class: "dim", title: fullTime(it.pushed) }, dateTime(it.pushed)),
    ),
    h(
      "ul",
      { class: "platforms" },
      it.platforms.map((platform) =>
        h("li", {}, h("strong", {}, platform.platform), h("span", {}, bytes(platform.size_bytes)), h("code", { title: platform.digest }, shortDigest(platform.digest)), platform.attestations > 0 && h("span", { class: "dim" }, `${platform.attestations} attestation${platform.attestations > 1 ? "s" : ""}`)),
      ),
    ),
    h("p", {}, codeLine(it.pull, "the pull line")),
    h("p", { class: "dim" }, "Index ", h("code", { title: it.digest }, shortDigest(it.digest)), copyButton(it.digest, "the digest"), ` ${it.media_type.includes("docker") ? "Docker manifest list" : "OCI image index"}`),
  );
}
