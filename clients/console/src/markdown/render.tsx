/**
 * Markdown as React elements, by way of the tokens of `marked`. No HTML is ever made of text: what looks like HTML is
 * shown as it was written, links lead to web pages and mail only, and pictures from elsewhere are links.
 */
import { lexer, type Token, type Tokens } from 'marked';
import { Fragment, type ReactNode } from 'react';
import { CodeBlock } from './code.js';

const SCHEMES = /^(https?|mailto):/i;
const PICTURES = /^data:image\/(png|jpeg|gif|webp);base64,/i;

/** Where a link may lead; null where it may not. */
export function safeHref(href: string): string | null {
  const text = [...href].filter((char) => char > ' ' && char !== '\u007f').join('');
  return SCHEMES.test(text) && URL.canParse(text) ? text : null;
}

/** Quotes and lists in each other; what is deeper is shown as it was written. */
const MAX_DEPTH = 24;

/** A text that the parser cannot take (thousands of marks in each other) is shown as it was written. */
export function renderMarkdown(source: string): ReactNode {
  try {
    return blocks(lexer(source, { gfm: true }), 0);
  } catch (error) {
    if (error instanceof RangeError) return verbatim(source);
    throw error;
  }
}

const verbatim = (text: string): ReactNode => <p className="verbatim">{text.replace(/\n+$/, '')}</p>;

function blocks(tokens: readonly Token[] | undefined, depth: number): ReactNode[] {
  return (tokens ?? []).map((token, at) => (
    <Fragment key={String(at)}>{depth > MAX_DEPTH ? verbatim(token.raw) : block(token, depth)}</Fragment>
  ));
}

function inlines(tokens: readonly Token[] | undefined, depth = 0): ReactNode[] {
  return (tokens ?? []).map((token, at) => (
    <Fragment key={String(at)}>{depth > MAX_DEPTH ? token.raw : inline(token, depth + 1)}</Fragment>
  ));
}

const HEADINGS = ['h3', 'h3', 'h4', 'h5', 'h6', 'h6'] as const; // below the name of who speaks

function block(token: Token, depth: number): ReactNode {
  switch (token.type) {
    case 'space':
    case 'def':
      return null;
    case 'heading': {
      const { depth } = token as Tokens.Heading;
      const Heading = HEADINGS[depth - 1] ?? 'h6';
      return <Heading className={`depth-${depth}`}>{inlines(token.tokens)}</Heading>;
    }
    case 'paragraph':
      return <p>{inlines(token.tokens)}</p>;
    case 'code':
      return <CodeBlock text={(token as Tokens.Code).text} language={(token as Tokens.Code).lang ?? ''} />;
    case 'blockquote':
      return <blockquote>{blocks(token.tokens, depth + 1)}</blockquote>;
    case 'hr':
      return <hr />;
    case 'list':
      return list(token as Tokens.List, depth + 1);
    case 'table':
      return table(token as Tokens.Table);
    case 'html':
      return verbatim(token.raw);
    default:
      return inline(token, 0);
  }
}

function list({ ordered, start, items }: Tokens.List, depth: number): ReactNode {
  const children = items.map((item, at) => (
    <li key={String(at)} className={item.task ? 'task' : undefined}>
      {item.task && (
        <span role="img" aria-label={item.checked ? 'done' : 'to do'}>
          {item.checked ? '☑ ' : '☐ '}
        </span>
      )}
      {blocks(
        item.tokens.filter(({ type }) => type !== 'checkbox'),
        depth,
      )}
    </li>
  ));
  return ordered ? <ol start={start === '' ? 1 : start}>{children}</ol> : <ul>{children}</ul>;
}

function table({ header, rows, align }: Tokens.Table): ReactNode {
  const side = (at: number) => (align[at] ? `align-${align[at]}` : undefined);
  return (
    <section className="table" tabIndex={0} aria-label="Table">
      <table>
        <thead>
          <tr>
            {header.map((cell, at) => (
              <th key={String(at)} scope="col" className={side(at)}>
                {inlines(cell.tokens)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, line) => (
            <tr key={String(line)}>
              {row.map((cell, at) => (
                <td key={String(at)} className={side(at)}>
                  {inlines(cell.tokens)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function inline(token: Token, depth: number): ReactNode {
  switch (token.type) {
    case 'text':
      return token.tokens ? inlines(token.tokens, depth) : (token as Tokens.Text).text;
    case 'escape':
      return (token as Tokens.Escape).text;
    case 'strong':
      return <strong>{inlines(token.tokens, depth)}</strong>;
    case 'em':
      return <em>{inlines(token.tokens, depth)}</em>;
    case 'del':
      return <del>{inlines(token.tokens, depth)}</del>;
    case 'codespan':
      return <code>{(token as Tokens.Codespan).text}</code>;
    case 'br':
      return <br />;
    case 'link':
      return link(token as Tokens.Link, depth);
    case 'image':
      return image(token as Tokens.Image);
    default:
      return token.raw;
  }
}

function link({ href, title, tokens, raw }: Tokens.Link, depth: number): ReactNode {
  const safe = safeHref(href);
  if (safe === null) return raw;
  return (
    <a href={safe} title={title ?? undefined} target="_blank" rel="noopener noreferrer nofollow">
      {inlines(tokens, depth)}
    </a>
  );
}

function image({ href, text, raw }: Tokens.Image): ReactNode {
  if (PICTURES.test(href)) return <img src={href} alt={text} />;
  const safe = safeHref(href);
  if (safe === null || safe.startsWith('mailto:')) return raw;
  // loading it would tell its host who reads this, and when
  return (
    <a className="picture" href={safe} target="_blank" rel="noopener noreferrer nofollow">
      Picture{text && `: ${text}`} ({new URL(safe).host})
    </a>
  );
}
