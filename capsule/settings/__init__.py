"""Where configuration comes from: flags, variables, a file; and what was wrong in it."""
