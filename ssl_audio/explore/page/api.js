// Requests to the server; every address begins with the token, the first part of this page's own.
export const token = location.pathname.split("/")[1];

async function answered(response) {
  if (response.ok) return response;
  let said = `${response.status} ${response.statusText}`;
  try { said = (await response.json()).error ?? said; } catch { /* no JSON */ }
  throw new Error(said);
}

async function asked(path, options = {}) {
  let response;
  try {
    response = await fetch(`api/${path}`, { ...options, headers: { "x-token": token, ...options.headers } });
  } catch {
    throw new Error("The server does not answer: was it stopped? Start it again and open the address it prints.");
  }
  return answered(response);
}

export const get = async (path) => (await asked(path)).json();
export const bytes = async (path) => (await asked(path)).arrayBuffer();
export const post = async (path, what) =>
  (await asked(path, { method: "POST", body: JSON.stringify(what), headers: { "content-type": "application/json" } })).json();
export const send = async (path, content) => (await asked(path, { method: "POST", body: content })).json();

// Why a picture or sound did not come.
export async function reason(path) {
  try { await answered(await fetch(path)); return ""; } catch (error) { return error.message; }
}
