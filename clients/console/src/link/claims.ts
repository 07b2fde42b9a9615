/**
 * What a token says that its holder may do. Only the gateway can check a token: this is read so that the page does not
 * offer what would be refused.
 */

export type Right = 'read' | 'send' | 'steer' | 'cancel' | 'tools' | 'approve' | 'admin';

export interface Claims {
  readonly user: string;
  readonly roles: readonly string[];
  /** ms since 1970 */
  readonly expiresAt: number | null;
  readonly sessions: { readonly [pattern: string]: readonly string[] };
}

/** The claims of a token; null of what is not a JWT. */
export function readClaims(token: string): Claims | null {
  try {
    const body = token.split('.')[1] ?? '';
    const bytes = Uint8Array.from(atob(body.replace(/-/g, '+').replace(/_/g, '/')), (char) => char.charCodeAt(0));
    const { sub, exp, roles, sessions } = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof sub !== 'string') return null;
    return {
      user: sub,
      roles: Array.isArray(roles) ? roles : [],
      expiresAt: typeof exp === 'number' ? exp * 1000 : null,
      sessions: typeof sessions === 'object' && sessions !== null ? sessions : {},
    };
  } catch {
    return null;
  }
}

/** Whether the token gives a right in a session. Of one that cannot be read nothing is known: the gateway will say. */
export function may(claims: Claims | null, right: Right, session: string): boolean {
  if (!claims) return true;
  return Object.entries(claims.sessions).some(([pattern, rights]) => {
    if (!Array.isArray(rights) || !(rights.includes(right) || rights.includes('admin'))) return false;
    const form = pattern.split('*').map((part) => part.replace(/[^\w-]/g, '\\$&'));
    return new RegExp(`^${form.join('.*')}$`).test(session);
  });
}
