"""The mathematics of sampling, on arrays alone: noise, noise schedules, solvers."""
