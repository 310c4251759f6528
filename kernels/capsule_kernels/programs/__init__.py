"""Programs that are run for sessions: a launcher that only forks, a keeper for each run, and the program under it."""
