/** A test for workerd, the runtime of Cloudflare Workers, with and without Node's modules. */

export default {
  async test(): Promise<void> {
    const { encrypt, probe, seal, SealStream, unseal, UnsealStream } = await import("../../mod.ts");
    const options = { key: new Uint8Array(16), iv: new Uint8Array(16) };
    const [chunk] = await Array.fromAsync(encrypt("ctr(aes)", options, new Uint8Array(16)));
    const key = new Uint8Array(32).fill(1);
    let length = 0;
    for await (const chunk of unseal({ key }, seal({ key }, new Uint8Array(300_000)))) length += chunk.length;
    const stream = new Blob(["attack at dawn"]).stream()
      .pipeThrough(new SealStream({ key })).pipeThrough(new UnsealStream({ key }));
    const { ffi, ciphers } = probe();
    const hex = Array.from(chunk!, (byte) => byte.toString(16).padStart(2, "0")).join("");
    console.log(JSON.stringify({ hex, length, text: await new Response(stream).text(), ffi, kernel: ciphers.kernel }));
  },
};
