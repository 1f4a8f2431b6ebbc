/** The ways to the two views of the console. */
export function Views({ current }: { current: string }) {
  return (
    <nav class="views" aria-label="Views">
      <a href="#" aria-current={current === 'tasks' ? 'page' : undefined} data-testid="to-tasks">
        Tasks
      </a>
      <a href="#overview" aria-current={current === 'overview' ? 'page' : undefined} data-testid="to-overview">
        Overview
      </a>
    </nav>
  );
}
