/** An id that nobody else has made. */
export function newId(): string {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16)); // not a secure context: plain http
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
