package web

// esbuild is a Go program (tools.mod), so that neither go build nor go generate needs node; preact
// comes from node_modules (npm ci) when the output is made again. The same input gives the same bytes.
//go:generate go tool -modfile=../tools.mod esbuild src/main.tsx src/main.css src/index.html src/favicon.svg --bundle --minify --format=esm --target=es2023,safari17 --jsx=automatic --jsx-import-source=preact --loader:.html=copy --loader:.svg=copy --legal-comments=none --outdir=dist --log-level=warning
