"""The long runs, one module each: `run(report, scale)` at full counts; the suite calls the same code at small ones."""
