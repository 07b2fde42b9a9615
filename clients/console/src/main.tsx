import { createRoot } from 'react-dom/client';
import { App } from './app.js';
import { Guard } from './base/guard.js';
import { applyTheme } from './chrome/theme.js';
import './styles/index.css';

applyTheme();
const root = document.getElementById('root');
if (!root) throw new Error('the page has no place for it');
createRoot(root).render(
  <Guard className="join" message="Something went wrong on this page. Nothing that was sent is lost.">
    <App />
  </Guard>,
);
