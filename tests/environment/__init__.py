"""The real parts that tests run against: started on demand, and stopped by what started them."""
