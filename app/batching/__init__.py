"""Which texts and generations an engine runs, and when: admission, queue, scheduler, slots."""
