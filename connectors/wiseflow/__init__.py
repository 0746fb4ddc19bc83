"""WISEflow by UNIwise: exams (flows), hand-ins and marks."""
