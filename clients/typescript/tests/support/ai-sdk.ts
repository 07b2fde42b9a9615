/** What a page with the AI SDK imports of this package. */
export * from '../../src/ai-sdk/index.js';
export { useInStep } from '../../src/ai-sdk/react.js';
export { AntiphonClient } from '../../src/index.js';
