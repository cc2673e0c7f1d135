"""When an engine runs, and for whom: queue, scheduler, admission, isolation, generations."""
