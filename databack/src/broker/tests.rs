mod blocks;
mod messages;
mod streams;
mod world;
