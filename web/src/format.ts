/** A length of time for people: 0.4 s, 12 s, 3 min 07 s, 2 h 05 min. */
export function duration(ms: number): string {
  const s = Math.max(0, ms) / 1000;
  if (s < 9.95) return `${s.toFixed(1)} s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
}

/** A time as the reader's locale writes it: of today the time of day alone. */
export function clock(ms: number, now = Date.now()): string {
  const at = new Date(ms);
  const day = at.toDateString() === new Date(now).toDateString() ? '' : `${at.toLocaleDateString([], { day: 'numeric', month: 'short' })}, `;
  return day + at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}
