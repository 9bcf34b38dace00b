// Pictures from a drop, a paste, a folder, a file dialogue or the camera.
import { attempt, el, tell } from "./shell.js";

const isPicture = (file) => file.type.startsWith("image/") || /\.(tiff?|bmp|ppm|pgm|jp2)$/i.test(file.name);

async function walk(entry, found) {
  if (entry.isFile) found.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
  else if (entry.isDirectory) {
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      for (const inner of some) await walk(inner, found);
    }
  }
}

export function createDrop(title, onfiles, { camera = true } = {}) {
  const give = (files) => { const kept = [...files].filter(isPicture); if (kept.length) onfiles(kept); else tell("No picture among these."); };
  const pick = (attributes) => el("input", { type: "file", class: "sr", tabindex: "-1", multiple: true, accept: "image/*,.tif,.tiff,.bmp", ...attributes, onchange: (event) => { give(event.target.files); event.target.value = ""; } });
  const files = pick({ id: "files", "aria-label": "Pictures" }), folder = pick({ webkitdirectory: true, "aria-label": "Folder" });
  const zone = el("div", { class: "drop" }, el("p", {}, title), el("div", { class: "row" },
    el("button", { class: "primary", type: "button", onclick: () => files.click() }, "Choose pictures"), el("button", { type: "button", onclick: () => folder.click() }, "Folder"),
    camera && el("button", { type: "button", onclick: attempt(() => takePicture(give)) }, "Camera")), files, folder);
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", attempt(async (event) => {
    event.preventDefault(); zone.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const found = [];
    for (const entry of entries) await walk(entry, found);
    give(found.length ? found : event.dataTransfer.files);
  }));
  document.addEventListener("paste", function take(event) {
    if (!zone.isConnected) document.removeEventListener("paste", take); // of a product that is no longer shown
    else if (event.clipboardData.files.length) give(event.clipboardData.files);
  });
  return zone;
}

// What one request may carry: the server takes 64 pictures and 210 MB.
export function cutIntoParcels(files, most = 16, mostBytes = 200e6) {
  const parcels = [];
  let bytes = Infinity;
  for (const file of files) {
    if (bytes + file.size > mostBytes || parcels.at(-1).length === most) { parcels.push([]); bytes = 0; }
    parcels.at(-1).push(file);
    bytes += file.size;
  }
  return parcels;
}

async function takePicture(give) {
  if (!navigator.mediaDevices) throw new Error("The camera needs https or this machine's own address.");
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  const take = el("button", { class: "primary", disabled: true, onclick: () => {
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight }); canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => { give([new File([blob], `camera-${Date.now()}.png`, { type: "image/png" })]); dialog.close(); });
  } }, "Take picture");
  // Before its first frame a camera's picture has no size.
  const video = el("video", { autoplay: true, playsinline: true, "aria-label": "Camera", onloadeddata: () => { take.disabled = false; take.focus(); } }); video.srcObject = stream;
  const dialog = el("dialog", {}, el("div", { class: "stack" }, video, el("div", { class: "row" }, take, el("button", { onclick: () => dialog.close() }, "Close"))));
  dialog.addEventListener("close", () => { stream.getTracks().forEach((track) => track.stop()); dialog.remove(); });
  document.body.append(dialog); dialog.showModal();
}
