//! Tests through the public interface.

mod loading;
