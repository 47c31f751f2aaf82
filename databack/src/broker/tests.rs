mod blocks;
mod messages;
mod model;
mod play;
mod streams;
mod threads;
mod world;
