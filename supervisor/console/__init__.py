"""What people see of a supervisor."""
