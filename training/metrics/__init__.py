"""Every number that this project reports about quality, in numpy alone; each module defines its metric before it computes it."""
