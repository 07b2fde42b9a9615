/** Everything in a session that waits for people, above the composer. */
import type { UsedSession } from '@antiphon/client/react';
import { newId } from '../base/ids.js';
import type { Ask } from '../waits/asks.js';
import { ApprovalCard, AskCard } from '../waits/cards.js';
import { OwnLane, WaitingHandover } from '../waits/handover.js';
import type { Rights } from './now.js';
import type { Refusals } from './refusals.js';

interface WaitsProps extends Pick<Refusals, 'errors' | 'run'> {
  readonly used: UsedSession;
  readonly rights: Rights;
  readonly asks: readonly Ask[];
  readonly user: string | null;
}

export function Waits({ used, rights, asks, user, errors, run }: WaitsProps) {
  const { approvals, handoffs, state } = used;
  const own = Object.entries(state.lanes).filter(([, { owner }]) => owner?.kind === 'user' && owner.id === user);
  if (!approvals.length && !handoffs.length && !asks.length && !own.length) return null;
  return (
    <section className="waits" aria-label="What waits for people">
      {handoffs.map((handoff) => (
        <WaitingHandover
          key={handoff.handoffId}
          handoff={handoff}
          barred={barredFrom(rights, handoff.to)}
          error={errors.get(handoff.handoffId) ?? ''}
          take={() => run(used.takeOver({ lane: handoff.lane, handoffId: handoff.handoffId }), handoff.handoffId)}
        />
      ))}
      {own.map(([lane]) => (
        <OwnLane
          key={lane}
          lane={lane}
          error={errors.get(`lane:${lane}`) ?? ''}
          giveBack={(note) => run(used.giveBack({ lane, inputId: newId(), note }), `lane:${lane}`)}
        />
      ))}
      {asks.map((ask) => (
        <AskCard key={ask.toolCallId} ask={ask} />
      ))}
      {approvals.map((approval) => {
        const { approvalId, lane, runId, toolCallId, roles } = approval;
        const agent = state.runs.find((each) => each.runId === runId)?.agent;
        return (
          <ApprovalCard
            key={approvalId}
            approval={approval}
            args={state.calls.find((call) => call.toolCallId === toolCallId)?.args ?? null}
            from={lane === 'main' ? '' : (agent ?? lane)}
            user={user}
            barred={barredBy(rights, roles)}
            error={errors.get(approvalId) ?? ''}
            respond={(option, payload) => run(used.respond(approvalId, option, { payload }), approvalId)}
          />
        );
      })}
    </section>
  );
}

function barredFrom(rights: Rights, role: string): string | null {
  if (rights.isAdmin) return null;
  if (!rights.steer) return 'Your token does not give the right to take over.';
  return role && !rights.roles.includes(role) ? `Somebody with the role “${role}” can take over.` : null;
}

function barredBy(rights: Rights, roles: readonly string[]): string | null {
  if (!rights.approve) return 'Your token does not give the right to decide.';
  const isOneOf = !roles.length || roles.some((role) => rights.roles.includes(role));
  return isOneOf ? null : `Somebody with the role ${roles.map((role) => `“${role}”`).join(' or ')} decides.`;
}
