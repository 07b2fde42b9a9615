/** The client whose sessions are folded. */
import { CoreClientOf } from './core-client.js';
import type { Host } from './host.js';
import { Session, type SessionOptions } from './session.js';

/** See `CoreClientOf` for what it takes care of. */
export class AntiphonClient extends CoreClientOf<Session, SessionOptions> {
  protected opened(host: Host, name: string, options?: SessionOptions): Session {
    return new Session(host, name, options);
  }
}
