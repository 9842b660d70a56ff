// Usage: node push.mjs image|index
//
// Pushes what a Docker engine would: an image of one layer and no base, or the index of IMAGE_SOURCES.

import { createHash, randomBytes } from "node:crypto";

const { AWS_ENDPOINT_URL: endpoint, IMAGE_REPO_NAME: repository, IMAGE_TAG: tag } = process.env;
const OCI = "application/vnd.oci.image";

const target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const login = await fetch(endpoint, { method: "POST", headers: { "X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1" }, body: "{}" });
const token = (await login.json()).authorizationData[0].authorizationToken;
const headers = { Authorization: `Basic ${token}` };

const digestOf = (bytes) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

async function call(method, path, options = {}) {
  const answer = await fetch(new URL(path, endpoint), { method, ...options, headers: { ...headers, ...options.headers } });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

async function pushBlob(bytes, mediaType) {
  const digest = digestOf(bytes);
  const begun = await call("POST", `/v2/${repository}/blobs/uploads/`);
  const location = new URL(begun.headers.get("Location"), endpoint);
  location.searchParams.set("digest", digest);
  await call("PUT", location, { body: bytes, headers: { "Content-Type": "application/octet-stream" } });
  return { mediaType, digest, size: bytes.length };
}

async function pushManifest(manifest) {
  const body = JSON.stringify(manifest);
  await call("PUT", `/v2/${repository}/manifests/${tag}`, { body, headers: { "Content-Type": manifest.mediaType } });
  console.log(`pushed ${repository}:${tag} ${digestOf(body)}`);
}

async function image() {
  const [os, architecture, variant] = process.env.IMAGE_PLATFORM.split("/");
  const layer = randomBytes(architecture === "amd64" ? 1_310_720 : 1_179_648);
  const config = { os, architecture, variant, rootfs: { type: "layers", diff_ids: [digestOf(layer)] }, config: {} };
  await pushManifest({
    schemaVersion: 2,
    mediaType: `${OCI}.manifest.v1+json`,
    config: await pushBlob(Buffer.from(JSON.stringify(config)), `${OCI}.config.v1+json`),
    layers: [await pushBlob(layer, `${OCI}.layer.v1.tar`)],
  });
}

async function index() {
  const manifests = [];
  for (const source of process.env.IMAGE_SOURCES.split(" ")) {
    const [platform, digest] = source.split("=");
    const [os, architecture, variant] = platform.split("/");
    const found = await call("HEAD", `/v2/${repository}/manifests/${digest}`, { headers: { Accept: `${OCI}.manifest.v1+json` } });
    manifests.push({ mediaType: `${OCI}.manifest.v1+json`, digest, size: Number(found.headers.get("Content-Length")), platform: { os, architecture, variant } });
  }
  await pushManifest({ schemaVersion: 2, mediaType: `${OCI}.index.v1+json`, manifests });
}

await { image, index }[process.argv[2]]();
