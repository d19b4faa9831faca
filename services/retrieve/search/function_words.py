"""Words that carry structure, not content, in English and German; and those by which other
languages are told from the two.

Lower case, without accents removed. Sets for `conversation.py`, which reads questions with them.
"""

from types import MappingProxyType


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


ENGLISH = _set(
    """a about above after again against all also although am among an and another any anyone
    anything are aren't around as at be because been before being below between both but by can
    can't cannot could couldn't did didn't do does doesn't doing don't done down during each either
    else ever every everyone few for from further get gets getting go goes going gonna got had has
    hasn't have haven't having he hello help her here hers hi him his how i i'd i'll i'm i've if in
    instead into is isn't it it's its just kindly know least less let let's like ll look many may me
    might mine more most much must my need needs neither no none nor not now of off ok okay on once
    one ones only or other others our out over own per please possible really s same shall she
    should shouldn't since so some something still such t tell than thank thanks that that's the
    their theirs them then there there's these they they're this those though through thus to too
    toward under unless until up upon us use used uses using ve very via want was wasn't we were
    weren't what what's when where where's whether which while who who's whom whose why will with
    within without won't would wouldn't yes yet you you're your yours"""
)
GERMAN = _set(
    """ab aber alle allem allen aller alles als also am an andere anderen anderer anderes auch auf
    aus außer außerdem bei beide beiden beim bekomme bekommt bekommen bevor bin bis bitte braucht
    brauche brauchen da dabei dadurch dafür dagegen daher damit danach danke dann daran darauf das
    daraus darf darin darüber darum davon davor dazu dein deine deinem deinen deiner dem den denen
    denn der deren derselbe derselben des deshalb dessen dich die dies diese dieselbe dieselben
    diesem diesen dieser dieses dir doch dort du durch dürfen ein eine einem einen einer eines er
    es etwas euch euer eure falls für ganz gar geben gegen geht gelten gemacht gerade gern gibt
    gilt habe haben hallo hat hatte hatten hier hilf ich ihm ihn ihnen ihr ihre ihrem ihren ihrer
    ihres im immer in ins irgendein ist ja je jede jedem jeden jeder jedes jene jenem jenen jener
    jenes jetzt kann kannst kein keine keinem keinen keiner können könnte könnten machen macht mal
    man mehr mein meine meinem meinen meiner mich mir mit möchte muss müssen musst nach nachdem
    neben nein nicht nichts noch nun nur ob oder ohne sagen schon sehr sein seine seinem seinen
    seiner seines seit selbst sich sie sieht sind so sobald sofern soll sollen sollte sollten
    solche solchen sondern sonst soweit statt trotz über überhaupt um und uns unser unsere unserem
    unseren unserer unter viel viele vom von vor wann war waren warum was weil welche welchem
    welchen welcher welches wem wen wenig weniger wenn wer werde werden weshalb wessen weswegen wie
    wieder wieso wieviel will wir wird wo wobei wodurch wofür womit wohin woher woran worauf woraus
    worin worüber wovon wozu wurde wurden während wäre würde würden zu zum zur zwischen"""
)
# Only what neither English nor German has: a short question has few words to tell it by.
OTHERS = _set(
    """est sont les une du aux avec pour dans sur quel quelle quels quelles que qui où comment
    combien pourquoi il elle et ou ce cette ces le la l'
    el los las un una unos del al con para por qué cuál cuáles cómo cuándo dónde quién cuánto y o su
    sus está son lo
    il lo gli i di della dei del con per che chi cosa come quando dove quanto perché è sono e
    het een de van voor wat hoe waar waarom wanneer wie welke naar niet zijn deze dit met ook kunnen
    hva hvad hvor hvordan hvornår hvem det den en ett et og och att på av til för vad var hur när
    vilken är med som
    o os as um uma do da dos das no na em qual quais onde quando são você
    jak co kiedy gdzie czy jest w na z i do się dla
    mikä missä miten milloin kuka onko ja"""
) - (ENGLISH | GERMAN)

# Verbs and adjectives that say nothing without what they are said of; "it is allowed".
PREDICATES = _set(
    """apply applies explain describe elaborate work works working take takes last lasts cost costs
    happen happens mean means start starts end ends change changes allowed valid exist exists become
    becomes hold holds give gives find long much often fast quickly soon old big large high
    expensive different first second third next latter former available mandatory required optional
    free same compare compares compared
    gelten dauert dauern kostet kosten funktioniert funktionieren passiert passieren bedeutet heißt
    beginnt beginnen endet enden ändert möglich erlaubt gültig nötig erforderlich lange hoch teuer
    oft schnell groß alt erste zweite dritte nächste letzte erkläre beschreibe freiwillig kostenlos
    """
)
# Nouns that always are of something: "the default", of what?
RELATIONAL = _set(
    """difference differences default defaults maximum minimum max min limit limits exception
    exceptions example examples details detail reason reasons alternative alternatives advantage
    advantages disadvantages downside downsides requirement requirements deadline fee price costs
    size length number format duration step steps comparison information info benefit benefits
    unterschied unterschiede standard standardwert höchstwert mindestwert grenze grenzen ausnahme
    ausnahmen beispiel beispiele einzelheiten grund gründe alternative vorteil vorteile nachteil
    nachteile voraussetzung voraussetzungen frist gebühr preis größe länge zahl anzahl dauer schritt
    schritte vergleich pflicht informationen zweck folgen bedingungen"""
)

PRONOUNS = MappingProxyType(
    {
        "en": _set("it they them their theirs its he she him her his hers this these those that"),
        "de": _set(
            """er sie ihn ihm ihnen ihr ihre ihrem ihren ihrer ihres deren dessen dies dieser
            diese dieses diesen diesem jene jener derselbe dieselbe dieselben dafür dagegen damit
            danach daran darauf daraus darin darüber davon davor dazu dabei dort das die der es"""
        ),
    }
)
POSSESSIVES = _set(
    """its their theirs his her hers ihr ihre ihrem ihren ihrer ihres seine seinem seinen seiner
    seines deren dessen"""
)
# Words that ask for more of what was spoken of, or for something beside it.
BESIDE = _set("else instead otherwise likewise stattdessen sonst genauso ebenso")
CLAUSE = _set(
    """when if while after before because until since once unless whether that which who whose whom
    so than and or but wenn falls nachdem bevor weil bis sobald während dass ob damit und oder aber
    sofern der die das"""
)
QUESTION = _set(
    """what what's which who who's whom whose when where where's why how
    was welche welchen welchem welcher welches wer wem wen wessen wann wo warum wieso weshalb wie
    wieviel wohin woher woran worauf woraus worin worüber wovon wozu wofür womit wodurch
    """
)
FINITE = _set(
    """is isn't are aren't was wasn't were weren't am be do don't does doesn't did didn't has hasn't
    have haven't had can can't cannot could couldn't may might must shall should shouldn't will
    won't would wouldn't need needs
    ist sind war waren bin hat haben hatte kann können könnte darf dürfen muss müssen soll sollen
    sollte will wird werden wurde wurden würde gibt gilt gelten geht braucht bekommt bekomme macht
    möchte brauche"""
)
PREPOSITIONS = _set(
    """for in on at by with without within from to of about under over between during since until
    after before per via as outside inside
    für in im am an auf bei beim mit ohne von vom aus nach vor zu zum zur seit bis während unter
    über zwischen gegen um außerhalb innerhalb als"""
)
LEADS = _set("and or but so also only even und oder aber auch nur sogar")
ARTICLES = _set("a an the der die das dem den des ein eine einem einen einer")
SAME = _set("same gleiche gleichen selbe selben")
# What has a verb behind it in an English question.
SUBJECTS = _set("i you we they one he she people to can could must should may")
# What takes note of an answer, and what may stand beside it.
THANKS = _set(
    """thanks thank thx cheers ok okay got understood great perfect cool alright fine
    danke dankeschön dank verstanden klar super prima perfekt gut"""
)
WITH_THANKS = _set(
    """i you so very much many a lot it that this is was all for your the help again
    vielen sehr schön alles das ist für deine die dir ihnen ich ihre hilfe"""
)
