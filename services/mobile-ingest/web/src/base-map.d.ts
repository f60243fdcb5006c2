/** Made by `vite.config.ts`. */
declare module 'virtual:base-map' {
  const url: string;
  export default url;
}
