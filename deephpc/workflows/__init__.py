"""One story per verb: `plan_*` decides (pure), `carry_out` acts; the only place where the parts below meet."""
