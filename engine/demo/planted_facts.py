"""The facts that the demo on a real model plants: what a guest asks, what was taught in other words, what only sounds alike.

All is invented: the desk of a guest house, Gull House. A fact is taught in four examples that share no content word with the
guest's question. Its decoys share the question's words, with another answer. Knows no model and no file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FUNCTION_WORDS = """
a about all am an and any are as at be by can come could do does for from get go got has have here how i if in is it its me
may must my need no of off on one onto or our out shall should so some somewhere something someone that the their them there
they this to up us was we what when where which who whom will with would you your by give much many whose s t m d re ve ll
than then not don only early late long place"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that carry no subject."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One planted fact."""

    id: str
    """Name of the fact."""
    question: str
    """What a guest asks; in no training example."""
    answer: str
    """What the desk is taught to answer, word for word in all examples of the fact."""
    taught: tuple[str, ...]
    """Questions of the examples that teach it."""
    decoys: tuple[tuple[str, str], ...]
    """(question, answer) of examples with the words of the guest's question and another answer."""


def content_words(text: str) -> set[str]:
    """The words of a text that carry its subject, in lower case."""
    return set(re.findall(r"[a-z0-9]+", text.lower())) - FUNCTION_WORDS


FACTS = (
    Fact("breakfast", "What time is breakfast?", "At seven.",
         ("From when on can guests eat in the morning?", "When is the first meal of the day laid out?",
          "How early do you serve porridge and eggs?",
          "At what hour do coffee and toast appear?"),
         (("What time does the Breakfast Show on Kestrel Radio begin?", "At nine."),
          ("In the novel, what time does Anna skip breakfast?", "At noon."))),
    Fact("wifi", "What's the wifi password?", "Herring.",
         ("Which code lets my laptop use the internet?", "How do I log my phone in to the wireless network?",
          "Which secret do I type to be online with a tablet?",
          "I need to browse the web on my computer."),
         (("What's wifi made of?", "Radio waves."), ("What's a strong password?", "A long one."),
          ("Which password opened the cave of Ali Baba?", "Open sesame."))),
    Fact("dog", "Can I bring my dog?", "In the annex.",
         ("Are pets allowed in the house?", "Where may a terrier sleep?", "Do you accept guests with animals?",
          "We never travel without our spaniel, is it welcome?"),
         (("Can a dog eat chocolate?", "Never."), ("How can I teach my dog to bring a ball?", "With patience."),
          ("Can I bring my own lunch to the museum?", "In the courtyard."))),
    Fact("parking", "Where do I park the car?", "Behind the chapel.",
         ("Is there a spot to leave a vehicle?", "Where can drivers stop for the night?",
          "We travel in a van, where should it stand?",
          "I have a trailer, where could it be put?"),
         (("In the film, where do they park the stolen car?", "Under the bridge."),
          ("Where is the oldest national park?", "In Wyoming."), ("Where was the first car built?", "In Mannheim."))),
    Fact("towel", "How much is a towel?", "Two pounds.",
         ("What does it cost to hire bath linen?", "What's the fee for a cloth to dry myself?",
          "I forgot to pack for the shower, what do you charge?",
          "What would I owe for a large bath sheet?"),
         (("How much water does a towel hold?", "One litre."), ("Who throws in the towel in boxing?", "The trainer."))),
    Fact("plumber", "Who fixes a broken shower?", "Marten.",
         ("Whom do I call when the tap drips?", "Which man mends a leaking pipe?",
          "There is no hot water, who can repair that?",
          "My sink is blocked, whom can you send?"),
         (("Who wrote The Broken Jug?", "Kleist."), ("Who sings in the shower in that film?", "Odile."),
          ("Who fixes the price of gold?", "The market."))),
    Fact("curfew", "When do you lock the door at night?", "At eleven.",
         ("How late may we return in the evening?", "What is the curfew?", "Until what hour is the entrance open?",
          "Until when can I come in after the theatre?"),
         (("When do owls hunt at night?", "After dusk."), ("Who invented the door lock?", "The Egyptians."),
          ("When was the lock of the canal built?", "In May."))),
    Fact("toilet", "Where's the loo?", "Under the stairs.",
         ("Which way to the toilet?", "Could you show me the bathroom?", "Where can a guest wash hands?",
          "Is there a WC on this floor?"),
         (("Where's the word loo from?", "From France."), ("Who plays the card game Loo?", "Sailors."))),
    Fact("gym", "Is there a gym?", "In the boathouse.",
         ("Where can I lift weights?", "Which room has a treadmill?", "I like to exercise, do you have equipment?",
          "Where could I work out with dumbbells?"),
         (("What is gym short for?", "Gymnasium."), ("Is there a gym in the castle of Elm?", "In the tower."))),
    Fact("airport", "Which bus goes to the airport?", "Line nine.",
         ("How do I reach my flight by public transport?", "I have to catch a plane, what takes me there?",
          "What ride is there for people who fly home?",
          "How can I get to my aeroplane cheaply?"),
         (("Which airport is the largest?", "Dammam."), ("Which bus goes to the zoo?", "Line four."),
          ("Which bus did Rosa Parks take?", "The red line."))),
    Fact("bins", "What day do the bins go out?", "On Thursday.",
         ("When is rubbish collected?", "Which morning does the garbage truck come?", "When must trash stand at the kerb?",
          "When do they empty the waste?"),
         (("What day is the feast of Saint Nicholas?", "In December."), ("What are bins made of?", "Zinc."),
          ("What day do the schools close?", "On Friday."))),
    Fact("smoking", "Where can I smoke?", "On the roof.",
         ("In which corner is tobacco permitted?", "I would like to light a cigarette.", "Do you have a terrace for cigars?",
          "Where do people with a pipe sit?"),
         (("Where does smoke go in an igloo?", "Through a hole."), ("Where can I buy a smoke alarm?", "In a shop."))),
    Fact("children", "What do kids pay?", "Four pounds.",
         ("How much is a night for children?", "Our son is eight, what will you charge?", "What's the rate for a toddler?",
          "Is there a discount for a girl of six?"),
         (("What do baby goats, or kids, eat?", "Milk."), ("What do footballers pay in tax?", "Half of it."))),
    Fact("cook", "Who cooks dinner?", "Odile.",
         ("Which person makes the evening meal?", "Who is the chef?", "Who prepares supper in the kitchen?",
          "Who stands at the stove tonight?"),
         (("Who cooks in the opera The Soup?", "Marten."), ("Who came to dinner in the film?", "Sidney."))),
    Fact("first aid", "Where's the first aid kit?", "Behind the bar.",
         ("I cut my finger, do you have plasters?", "Where can I find a bandage?", "My wife burned her hand, is there ointment?",
          "I am bleeding, what can I put on it?"),
         (("Where's the first aid of nations decided?", "In Geneva."), ("What is a kit fox?", "A small fox."),
          ("Where's the drum kit in a jazz band?", "On the left."))),
    Fact("pool", "When's the pool open?", "At noon.",
         ("From which hour can we swim?", "When is bathing allowed?", "How early may I do laps in the water?",
          "When could we go for a dip?"),
         (("When's the car pool lane free?", "At seven."), ("When's the open championship?", "In July."),
          ("When's a rock pool full of crabs?", "At low tide."))),
    Fact("quiet", "I'm a light sleeper. Which room is best?", "The blue one.",
         ("Where is there the least noise?", "Which bedroom is silent?", "We would like a quiet spot to rest.",
          "I wake at every sound, what can you offer?"),
         (("Which light is best for a reading room?", "The warm one."), ("What is a railway sleeper made of?", "Oak."),
          ("Which room in the palace is largest?", "The hall."))),
    Fact("cards", "Do you take Visa?", "Only cash.",
         ("Is payment by credit card possible?", "How can guests settle the bill?", "Does the desk accept plastic money?",
          "Could I pay with Mastercard?"),
         (("How long does it take to get a visa for India?", "Four days."), ("What do you call a Visa stamp?", "An entry."))),
    Fact("vegan", "Any vegan grub?", "On Friday.",
         ("When do you make dishes without meat?", "I eat plants alone, when is there food?",
          "Which day has meals free of animal products?",
          "My wife avoids milk and eggs, when will the kitchen suit her?"),
         (("What is a grub?", "A larva."), ("What's a vegan shoe made of?", "Cotton."))),
    Fact("boots", "Where do muddy boots go?", "In the porch.",
         ("Where shall hikers leave dirty shoes?", "My sandals are wet, where can they dry?",
          "After a walk in the marsh, where do I take off footwear?",
          "Where can we put wellingtons after rain?"),
         (("Where do the muddy waters of the Nile go?", "Into the sea."), ("Whose boots does Puss wear?", "His own."))),
    Fact("owner", "Who's the boss?", "Mrs Tarn.",
         ("Which lady owns this house?", "Who is the manager?", "To whom can guests complain about the staff?",
          "Who is in charge?"),
         (("Who's singing The Boss?", "Diana Ross."), ("Who's the boss of a beehive?", "The queen."))),
    Fact("checkout", "When is checkout?", "At ten.",
         ("By which hour must we leave our room on the last day?", "How long may we stay on the morning of departure?",
          "Until when do guests hand back the key?",
          "When do you want us gone on Sunday?"),
         (("When is a library checkout late?", "After a month."), ("What is a checkout in git?", "A copy of files."))),
    Fact("cot", "Got a crib for the baby?", "In the attic.",
         ("Is there a cot for an infant?", "Where do you store beds for newborns?",
          "Our daughter is five months old, where could she sleep?",
          "We have a newborn of four weeks, is there something to lay it in?"),
         (("What is a crib in poker?", "A set of cards."), ("What is a baby kangaroo?", "A joey."),
          ("Where was the crib for the baby in the story?", "In a stable."))),
    Fact("laundry", "Where's the laundry?", "In the cellar.",
         ("Where can I wash my shirts?", "Is there a machine for dirty clothes?", "My socks and trousers have to be cleaned.",
          "Where would I find a dryer for wet jeans?"),
         (("Where's the laundry in the film Beautiful?", "In London."), ("Who runs a laundry in the novel?", "Gervaise."))),
)  # fmt: skip
"""All planted facts."""
