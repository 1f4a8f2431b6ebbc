import { useEffect, useState } from 'preact/hooks';
import type { Client } from '../../client/src/index.ts';
import { App } from './app.tsx';
import { Connection } from './connection.tsx';
import type { Overview, Status } from './overview.ts';
import { statuses } from './overview.ts';
import { OverviewPane } from './overview-pane.tsx';
import type { KindForm } from './params.ts';
import type { Session } from './session.ts';
import { Views } from './views.tsx';
import { WorkflowPane } from './workflow-pane.tsx';

interface Props {
  client: Client;
  session: Session;
  overview: Overview;
  kinds: KindForm[];
  changed: () => void;
}

/** The view that the address names: #overview, #overview=<status>, #workflow=<id>, or else this tab's tasks. */
export function Page({ client, session, overview, kinds, changed }: Props) {
  const hash = useHash();
  const [, view, of = ''] = /^#(overview|workflow)(?:=(.*))?$/.exec(hash) ?? [];
  if (!view) return <App session={session} kinds={kinds} />;
  const status = statuses.find((s) => s === of) ?? ('' satisfies Status | '');
  return (
    <>
      <header class="top">
        <h1>wscluster</h1>
        <Views current={view} />
        <Connection session={session} />
      </header>
      {view === 'overview' ? <OverviewPane overview={overview} status={status} /> : <WorkflowPane key={of} id={of} client={client} changed={changed} />}
    </>
  );
}

function useHash(): string {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const changed = () => set(location.hash);
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return hash;
}
