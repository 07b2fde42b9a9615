/** What goes wrong in a part of the page ends that part, not the page. */
import { Component, type ReactNode } from 'react';

interface GuardProps {
  readonly children: ReactNode;
  /** What is said in place of it. */
  readonly message: string;
  readonly className?: string | undefined;
}

export class Guard extends Component<GuardProps, { readonly hasFailed: boolean }> {
  override state = { hasFailed: false };

  static getDerivedStateFromError() {
    return { hasFailed: true };
  }

  override render(): ReactNode {
    const { children, message, className } = this.props;
    if (!this.state.hasFailed) return children;
    return (
      <div className={className} role="alert">
        <p className="pad">{message}</p>
        <p className="pad">
          <button type="button" className="plain" onClick={() => location.reload()}>
            Reload the page
          </button>
        </p>
      </div>
    );
  }
}
